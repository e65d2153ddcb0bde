"""`verify`: runs a bundle's golden inputs on targets and compares every spike with the recorded ones."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cos_export.bundle import Bundle
from cos_export.bundle.golden import Golden
from cos_export.bundle.target import PreSimulating, Target
from cos_export.errors import CosExportError, UnavailableError
from cos_export.json_numbers import spelled
from cos_export.network import SampleStates
from cos_export.parity.comparison import Comparison, compare
from cos_export.parity.local import LocalResult, check_local
from cos_export.parity.record import RecordCheck, check_record
from cos_export.parity.states import FEW, compared_states
from cos_export.progress import Progress, silent
from cos_export.simulation import PerSampleCalibration

__all__ = ["ParityResult", "TargetParity", "verify"]


@dataclass(frozen=True)
class TargetParity:
    """What one target did.

    Attributes:
        name: The target.
        version: Of what ran it.
        seconds: How long the run took, start-up included.
        comparison: End to end, against the recorded reference.
        local: Against float64, spike by spike.
        exact: Whether end-to-end equality is required (fixed point) or not (float32).
        exact_logits: Whether it is of logits, too: those that an earlier version recorded were rounded once more.
        states_fault: What is wrong with the states that the target itself sets for each sample, if it pre-simulates.
    """

    name: str
    version: str
    seconds: float
    comparison: Comparison
    local: LocalResult
    exact: bool
    exact_logits: bool = True
    states_fault: str = ""

    @property
    def mismatches(self) -> int:
        """Spikes that differ from the reference, end to end."""
        return self.comparison.mismatches

    @property
    def local_violations(self) -> int:
        """Spikes and logits that float32 rounding cannot explain."""
        return self.local.violations

    @property
    def passed(self) -> bool:
        """No local violation nor states of its own; in fixed point also no mismatch, and not one logit that differs."""
        # A difference that is not a number is one.
        differs = self.mismatches > 0 or (self.exact_logits and self.comparison.logit_difference != 0)
        return self.local_violations == 0 and not self.states_fault and not (self.exact and differs)


@dataclass(frozen=True)
class ParityResult(Mapping[str, TargetParity]):
    """The parity of every target that ran to its end, by name.

    Attributes:
        targets: What each did.
        samples: Inputs that were run.
        steps: T.
        golden_samples: Which of the golden inputs they were, by their numbers from 0, if not all; else None.
        record_faults: What is wrong with the recorded run itself, a sentence each.
        refused: Why a target has no result: it is not there, refuses the network, or failed while it ran.
        states_differing: States of samples in it that the bundle's per-sample method sets otherwise here.
    """

    targets: Mapping[str, TargetParity]
    samples: int
    steps: int
    golden_samples: tuple[int, ...] | None = None
    record_faults: tuple[str, ...] = ()
    refused: Mapping[str, CosExportError] = field(default_factory=dict)
    states_differing: int = 0

    @property
    def passed(self) -> bool:
        """Whether every target ran and passed, and the record that they are compared with is the network's."""
        return not (self.record_faults or self.refused) and all(target.passed for target in self.targets.values())

    @property
    def exit_code(self) -> int:
        """What a command ends with: 0, 1 if a spike or the record is wrong, else that of the first target refused."""
        if self.refused and not self.record_faults and all(target.passed for target in self.targets.values()):
            return next(iter(self.refused.values())).exit_code
        return 0 if self.passed else 1

    def __getitem__(self, name: str) -> TargetParity:
        return self.targets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.targets)

    def __len__(self) -> int:
        return len(self.targets)

    def to_dict(self) -> dict[str, Any]:
        """The whole result as plain numbers, lists and dicts; JSON has no nan and inf, which are those words."""
        values: dict[str, Any] = spelled(
            {
                "passed": self.passed,
                "samples": self.samples,
                "steps": self.steps,
                "golden_samples": None if self.golden_samples is None else list(self.golden_samples),
                "record_faults": list(self.record_faults),
                "states_differing": self.states_differing,
                "targets": {name: _plain(target) for name, target in self.targets.items()},
                "refused": {
                    name: {"error": str(error), "exit_code": error.exit_code} for name, error in self.refused.items()
                },
            }
        )
        return values


def verify(
    bundle: Bundle,
    targets: Sequence[Target],
    *,
    calibration: PerSampleCalibration | None = None,
    reference: Golden | None = None,
    samples: Sequence[int] | None = None,
    progress: Progress = silent,
) -> ParityResult:
    """Runs the golden inputs of a bundle, or others, on every target and checks what they fire.

    First the record that they are compared with is checked itself, against the PyTorch reference (`check_record`).

    The local check reads the network, the inputs, the spikes and the logits, and nothing else. So it is done once for
    all targets whose spikes and logits are the recorded ones, bit for bit, and for each other target anew.

    A target that is not there, refuses the network or fails is one of `refused` in the result: what the others have
    come to is kept.

    Args:
        bundle: What to run.
        targets: Where to run it.
        calibration: The bundle's per-sample method, if it is known with all of its options.
        reference: A run of the reference, made just now on other inputs, to compare with in place of the record.
        samples: Which of the golden inputs to run, by their numbers from 0; by default all.
        progress: Told as the runs go on.

    Returns:
        Both figures for each target: mismatches end to end, and local violations.

    Raises:
        BundleError: The bundle is damaged.
        InputError: There are no such samples.
    """
    if reference is None:
        expected, record = bundle.golden, check_record(bundle, calibration=calibration, progress=progress)
    else:
        expected, record = reference, RecordCheck(())
    if samples is not None:
        expected = expected.part(samples)
    # Of a record whose states are not the method's, or of an unknown method, nobody knows what a target should set.
    states_known = expected.trace.rho > 0 and (reference is not None or (calibration is not None and not record.faults))
    # What the local check finds of the reference's run, once it has been asked.
    checked = record.local if samples is None else None
    by_target: dict[str, TargetParity] = {}
    refused: dict[str, CosExportError] = {}
    for target in targets:
        try:
            parity = by_target[target.name] = _on_target(bundle, target, expected, checked, states_known, progress)
        except CosExportError as error:
            refused[target.name] = error
            continue
        if parity.comparison.identical:
            checked = parity.local
    return ParityResult(
        by_target,
        len(expected.images),
        expected.trace.steps,
        None if samples is None else tuple(samples),
        record.faults,
        refused,
        record.states_differing,
    )


def _on_target(
    bundle: Bundle,
    target: Target,
    expected: Golden,
    checked: LocalResult | None,
    states_known: bool,
    progress: Progress,
) -> TargetParity:
    """One target. Its trace is let go of before the next one runs: it may be as large as the reference's."""
    network, images, reference = bundle.network, expected.images, expected.trace
    state = target.available()
    if not state.ready:
        raise UnavailableError(state.reason)
    started = time.perf_counter()
    trace = target.run(bundle, images, reference.steps, states=reference.states, progress=progress)
    seconds = time.perf_counter() - started
    comparison, states_fault = compare(network, images, reference, trace), ""
    if states_known and isinstance(target, PreSimulating) and target.presimulates(bundle):
        own = target.run(bundle, images, reference.steps, progress=progress).states
        _, states_fault = compared_states(network, own or SampleStates(), reference.states or SampleStates(), few=FEW)
    if checked is None or not comparison.identical:
        checked = check_local(network, images, trace, states=reference.states, progress=progress)
    return TargetParity(
        name=target.name,
        version=state.version,
        seconds=seconds,
        comparison=comparison,
        local=checked,
        exact=network.quantisation is not None,
        exact_logits=bundle.rounds_logits_once,
        states_fault=states_fault,
    )


def _plain(target: TargetParity) -> dict[str, Any]:
    comparison, local = target.comparison, target.local
    layers = {
        name: {
            "slots_per_step": layer.slots,
            "reference_spikes": layer.spikes.tolist(),
            "mismatches": layer.mismatches.tolist(),
            "local_violations": local.layers[name].violations.tolist(),
            "near_ties": local.layers[name].near_ties.tolist(),
            "largest_bound": local.layers[name].largest_bound,
        }
        for name, layer in comparison.layers.items()
    }
    return {
        "passed": target.passed,
        "exact": target.exact,
        "version": target.version,
        "seconds": round(target.seconds, 3),
        "spikes_compared": comparison.compared,
        "mismatches": target.mismatches,
        "states_fault": target.states_fault,
        "local_violations": target.local_violations,
        "readout_violations": local.readout.violations.tolist(),
        "logit_difference": comparison.logit_difference,
        "decisions_changed": comparison.decisions_changed,
        "first_divergence": None if comparison.first is None else asdict(comparison.first),
        "violations": [asdict(violation) for violation in local.listed],
        "layers": layers,
    }
