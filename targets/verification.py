"""`verify` for users: a bundle's folder and targets by name."""

from __future__ import annotations

import os
from collections.abc import Sequence

from calibration import method_of
from cos_export import parity
from cos_export.bundle import Bundle, load
from cos_export.bundle.golden import Golden
from cos_export.bundle.target import Target
from cos_export.datasets import Images, in_memory
from cos_export.errors import BundleError, InputError, UnavailableError
from cos_export.network import check_inputs
from cos_export.progress import Progress, silent
from cos_export.simulation import PerSampleCalibration, simulate

__all__ = ["resolve", "verify"]


def resolve(targets: str | Target | Sequence[str | Target], *, deadline: float | None = None) -> list[Target]:
    """Targets by name, all of which can run here; a single one need not be in a list.

    Args:
        targets: Targets or their names.
        deadline: Seconds that a run may take on each that is given by its name; by default plenty.

    Raises:
        InputError: None are named, or one is unknown; or the deadline is not a positive number.
        UnavailableError: One or more cannot run here; the message says why, for each.
    """
    resolved = _named(targets, deadline)
    reasons = _reasons(resolved)
    if reasons:
        raise _unavailable(reasons)
    return resolved


def _named(targets: str | Target | Sequence[str | Target], deadline: float | None) -> list[Target]:
    from targets import get, names

    if isinstance(targets, str) or not isinstance(targets, Sequence):
        targets = [targets]
    if not targets:
        raise InputError(f"Name at least one target of {', '.join(names())}.")
    limit = {} if deadline is None else {"deadline": deadline}
    return [get(target, **limit) if isinstance(target, str) else target for target in targets]


def _reasons(targets: Sequence[Target]) -> list[str]:
    """Why targets cannot run here, of those that cannot."""
    states = [(target.name, target.available()) for target in targets]
    return [f"{name}: {state.reason}" for name, state in states if not state.ready]


def _unavailable(reasons: Sequence[str]) -> UnavailableError:
    return UnavailableError("A target cannot run here. " + " ".join(reasons))


def verify(
    bundle: Bundle | str | os.PathLike[str],
    targets: str | Target | Sequence[str | Target],
    *,
    images: Images | None = None,
    samples: Sequence[int] | None = None,
    deadline: float | None = None,
    progress: Progress = silent,
) -> parity.ParityResult:
    """Runs the golden inputs of a bundle, or other images, on every target and checks what they fire.

    A target that cannot run here, refuses the network or fails does not throw away what others have come to: the
    result has it in `refused`, and has not passed. If no target has a result, the first one's error is raised.

    Args:
        bundle: A bundle or its folder.
        targets: Targets or their names, or one of them.
        images: To run in place of the golden inputs, as for `cos_export.simulate`. The reference runs them first, and
            its spikes, and those of a target, take a byte each, T x neurons x samples: beyond 512 MiB in a temporary
            file where TMPDIR says.
        samples: Which of the golden inputs to run, by their numbers from 0, in place of all.
        deadline: Seconds that a run may take on each that is given by its name; by default plenty.
        progress: Told as the runs go on.

    Returns:
        Both figures for each target: mismatches end to end, and local violations.

    Raises:
        BundleError: The bundle is damaged, or its method is not known here.
        InputError: A target is unknown, the images do not fit, there are no such samples, or the deadline is not a
            positive number.
        NetworkError: No target has a result, and the first refuses the network.
        UnavailableError: None of the targets can run here.
        TargetError: No target has a result, and the first failed while it ran, or was not done by the deadline.
    """
    opened = bundle if isinstance(bundle, Bundle) else load(bundle)
    recorded = method_of(opened)
    if images is not None and samples is not None:
        raise InputError("samples are numbers of golden inputs, in whose place images are to be run: give one of both.")
    if images is None:
        _check_golden(opened, recorded.per_sample)
    named = _named(targets, deadline)
    reasons = _reasons(named)
    if len(reasons) == len(named):
        raise _unavailable(reasons)
    result = parity.verify(
        opened,
        named,
        # With an option at a default, for want of a record, the method need not set the states that were recorded.
        calibration=None if recorded.unknown else recorded.per_sample,
        reference=None if images is None else _reference_run(opened, images, recorded.per_sample, progress),
        samples=samples,
        progress=progress,
    )
    if not result.targets:
        raise next(iter(result.refused.values()))
    return result


def _reference_run(
    bundle: Bundle, images: Images, calibration: PerSampleCalibration | None, progress: Progress
) -> Golden:
    array = in_memory(check_inputs(bundle.network, images, bundle.steps))
    trace = simulate(bundle.network, array, bundle.steps, calibration=calibration, device="cpu", progress=progress)
    return Golden(array, trace)


def _check_golden(bundle: Bundle, method: PerSampleCalibration | None) -> None:
    """The golden run must hold states of each sample if the bundle's method sets them, and only then."""
    states = bundle.golden.trace.states
    if (states is None) != (method is None):
        raise BundleError(
            f"{bundle.golden_path} holds {'no ' if states is None else ''}states of each sample, which "
            f"{bundle.network.method!r} {'sets' if states is None else 'does not set'}. Export the bundle again."
        )
