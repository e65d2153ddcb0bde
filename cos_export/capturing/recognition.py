"""Recognises activations that others wrote, by what they compute: QCFS, and ReLUs with a learnt upper bound.

A candidate is a module of the user's own with one number that may be lambda: its only parameter or buffer, of one
entry, or else a float attribute. It is run in float64 on a grid of values, which reaches far beyond both ends and
close to every step on both sides, and taken for

    a = lambda * clip(floor(z L / lambda + 1/2) / L, 0, 1)        QCFS
    a = clip(z, 0, lambda)                                        a clipped ReLU, if lambda is a tensor

if it computes that everywhere. Its attributes' names do not matter, nor whether it clips before the floor or after.
What it does to its input besides is kept: see `cos_export.capturing.overwriting`.
"""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from cos_export.capturing.overwriting import Overwrites, OverwritingHardtanh, OverwritingQCFS
from cos_export.qcfs import QCFS
from cos_export.user_code import exits_raise

__all__ = ["Recognition", "recognise_activations"]

_GRID = 20_000
_MOST_LEVELS = 1_000
_TOLERANCE = 1e-5
"""In units of lambda. Some compute in float32 whatever they are given; a step is 1 / L high."""


@dataclass(frozen=True)
class Recognition:
    """What was found among the user's own modules.

    Attributes:
        notes: What was recognised, by path.
        suspects: What looks like QCFS and computes something else, by path, with the difference in words.
    """

    notes: dict[str, str] = field(default_factory=dict)
    suspects: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Match:
    threshold: float
    levels: int | None
    note: str
    overwrites: Overwrites = Overwrites.NOTHING


def recognise_activations(model: nn.Module, levels: int | None) -> Recognition:
    """Replaces each activation inside `model` that computes QCFS, or a ReLU with a learnt bound, by its own kind.

    Args:
        model: Changed in place; in eval mode.
        levels: L for those that do not say it, or None.
    """
    found = Recognition()
    known: dict[nn.Module, _Match | str | None] = {}
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if not path or isinstance(module, QCFS) or type(module).__module__.startswith("torch."):
            continue
        if module not in known:
            known[module] = _judge(module, levels)
        verdict = known[module]
        if isinstance(verdict, str):
            found.suspects[path] = verdict
        elif verdict is not None:
            parent, _, name = path.rpartition(".")
            model.get_submodule(parent)._modules[name] = _ours(verdict)
            found.notes[path] = verdict.note
    return found


def _ours(match: _Match) -> nn.Module:
    if match.levels is None:
        return OverwritingHardtanh(match.threshold, match.overwrites)
    activation = OverwritingQCFS(match.levels, match.overwrites)
    # A threshold that is not positive is refused later, where its place is known.
    activation.threshold.data.fill_(match.threshold)
    return activation.eval()


def _overwrites(module: nn.Module, threshold: float) -> Overwrites:
    """What `module` leaves in the memory of its input, in float32: `.float()` copies what is float64."""
    given = torch.linspace(-1.5, 2.5, 1_000).reshape(2, 4, 5, -1) * abs(threshold)
    z = given.clone()
    output = module(z)
    if torch.equal(z, given):
        return Overwrites.NOTHING
    if not torch.equal(z, output):
        return Overwrites.SOMETHING_ELSE
    shared = output.untyped_storage().data_ptr() == z.untyped_storage().data_ptr()
    return Overwrites.INPUT_BECOMES_RESULT if shared else Overwrites.RESULT_IS_COPIED


def _judge(module: nn.Module, levels: int | None) -> _Match | str | None:
    """What `module` is, how it differs from a QCFS, or None if it is nothing of the kind."""
    suspicion: str | None = None
    for name, threshold in _thresholds(module).items():
        try:
            with warnings.catch_warnings(), exits_raise(), torch.no_grad():
                warnings.simplefilter("ignore")
                verdict = _compare(copy.deepcopy(module).double().eval(), name, threshold, levels)
                if isinstance(verdict, _Match):
                    return replace(verdict, overwrites=_overwrites(copy.deepcopy(module).eval(), threshold))
        except (Exception, SystemExit):  # noqa: BLE001 - the user's code, given what it is not made for
            continue
        suspicion = suspicion or verdict
    return suspicion


def _thresholds(module: nn.Module) -> dict[str, float]:
    """The numbers of a module that may be lambda."""
    tensors = [*module.parameters(), *module.buffers()]
    own = {**module._parameters, **module._buffers}
    scalars = {
        name: float(tensor.detach())
        for name, tensor in own.items()
        if tensor is not None and tensor.numel() == 1 and tensor.is_floating_point()
    }
    if tensors:
        return _usable(scalars) if len(tensors) == len(scalars) == 1 else {}
    return _usable({name: value for name, value in vars(module).items() if isinstance(value, float)})


def _usable(numbers: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if math.isfinite(value) and value != 0}


def _compare(module: nn.Module, name: str, threshold: float, levels: int | None) -> _Match | str | None:
    z = torch.linspace(-1.5, 2.5, _GRID, dtype=torch.float64) * abs(threshold)
    output = _evaluate(module, z)
    if output is None:
        return None
    is_tensor = isinstance(getattr(module, name), Tensor)
    if is_tensor and threshold > 0 and torch.allclose(output, z.clamp(0, threshold), 0.0, _TOLERANCE * threshold):
        return _Match(threshold, None, f"it computes clip(z, 0, {threshold:.4g}), whose bound is {name!r}")
    steps = len(torch.unique((output / threshold / _TOLERANCE).round()))
    # Nothing but a quantiser has few values on so fine a grid; a learnt factor or an offset is none of ours.
    if not 2 <= steps <= _MOST_LEVELS + 1:
        return None
    counted = steps - 1
    # L is an integer more often than a float that happens to be one.
    for attribute, value in sorted(vars(module).items(), key=lambda entry: isinstance(entry[1], float)):
        if isinstance(value, int | float) and not isinstance(value, bool) and value == counted:
            source = f"L = {counted} from its attribute {attribute!r}"
            break
    else:
        source = f"L = {counted} as given" if levels == counted else f"L = {counted} by counting its steps"
    difference = _difference(module, threshold, counted)
    if difference is None:
        return _Match(threshold, counted, f"it computes QCFS with lambda = {threshold:.4g} ({name!r}) and {source}")
    return (
        f"it looks like a QCFS activation with lambda = {threshold:.4g} ({name!r}) and L = {counted}, and computes "
        f"something else: {difference}"
    )


def _difference(module: nn.Module, threshold: float, levels: int) -> str | None:
    """Where the module is farthest from QCFS, in words, or None if it is nowhere far."""
    risers = (torch.arange(1, levels + 1, dtype=torch.float64) - 0.5) / levels
    fine = torch.linspace(-1.5, 2.5, _GRID, dtype=torch.float64)
    far = torch.tensor([-1e3, -30.0, 30.0, 1e3], dtype=torch.float64)
    ratio = torch.cat([fine, risers - 1e-4 / levels, risers + 1e-4 / levels, far])
    # Exactly on a step, the order of the operations decides.
    ratio = ratio[((ratio * levels + 0.5) - (ratio * levels + 0.5).round()).abs() > 1e-5]
    z = ratio * threshold
    actual = _evaluate(module, z)
    expected = threshold * (torch.floor(ratio * levels + 0.5) / levels).clamp(0, 1)
    if actual is None:
        return "it is not the same for each entry on its own"
    off = (actual - expected).abs() / abs(threshold)
    if bool((off <= _TOLERANCE).all()):
        return None
    worst = int(off.nan_to_num(torch.inf).argmax())
    return f"at z = {float(z[worst]):.4g} it gives {float(actual[worst]):.4g}, and QCFS {float(expected[worst]):.4g}"


def _evaluate(module: nn.Module, z: Tensor) -> Tensor | None:
    """What the module gives for each entry of `z`, or None if that depends on where the entry stands."""
    count = len(z)
    padded = torch.cat([z, z[: -count % 64]])
    order = torch.randperm(len(padded), generator=torch.Generator().manual_seed(0))
    # A copy, for the module may write into it.
    images = module(padded.clone().reshape(2, 4, 8, -1))
    shuffled = module(padded[order].reshape(2, -1))
    for output in (images, shuffled):
        if not isinstance(output, Tensor) or output.numel() != len(padded):
            return None
    flat: Tensor = images.double().flatten()
    if not torch.allclose(flat[order], shuffled.double().flatten(), rtol=1e-6, atol=0.0, equal_nan=True):
        return None
    entries: Tensor = flat[:count]
    return entries
