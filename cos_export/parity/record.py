"""Whether the recorded run of a bundle is its network's: a target that agrees with a wrong record proves nothing."""

from __future__ import annotations

from dataclasses import dataclass

from cos_export.bundle import Bundle
from cos_export.decisions import decisions
from cos_export.network import SampleStates
from cos_export.parity.comparison import compare
from cos_export.parity.local import LocalResult, check_local
from cos_export.parity.states import compared_states
from cos_export.progress import Progress, silent
from cos_export.simulation import PerSampleCalibration, simulate

__all__ = ["RecordCheck", "check_record"]


@dataclass(frozen=True)
class RecordCheck:
    """What the check of a record came to.

    Attributes:
        faults: What is wrong with it, a sentence each.
        local: The local check of its spikes and logits, if one was made.
        states_differing: States of samples that the bundle's method sets otherwise here.
    """

    faults: tuple[str, ...]
    local: LocalResult | None = None
    states_differing: int = 0


def check_record(
    bundle: Bundle, *, calibration: PerSampleCalibration | None = None, progress: Progress = silent
) -> RecordCheck:
    """Runs the golden inputs in PyTorch once more and compares the record with it.

    A record of the same spikes and logits, bit for bit, is right. In fixed point any other is wrong, but for logits
    that an earlier version has rounded once more; in float32 one of another machine may differ. Both must then pass
    the local check: no spike and no logit beyond rounding.

    States of the samples are those that `calibration` sets, bit for bit; in float32 it may set up to 2 % of a layer
    otherwise, for a spike that flips within rounding changes the states of what follows.

    Args:
        bundle: Its network, golden run and manifest are read.
        calibration: The bundle's per-sample method; None if it has none or not all of its options are known, where
            states are taken as they are.
        progress: Told as it goes on.

    Raises:
        BundleError: The bundle is damaged.
    """
    network, golden = bundle.network, bundle.golden
    record, faults = golden.trace, _label_faults(bundle)
    states, differing, again = record.states, 0, None
    if calibration is not None and states is not None:
        again = simulate(network, golden.images, record.steps, calibration=calibration, device="cpu", progress=progress)
        differing, fault = compared_states(network, states, again.states or SampleStates())
        if fault:
            faults.append(
                f"golden.npz holds states of its samples that the bundle's method does not set: {fault} "
                "Export the bundle again."
            )
    if again is None or differing:
        again = simulate(network, golden.images, record.steps, states=states, device="cpu", progress=progress)
    comparison = compare(network, golden.images, record, again)
    if comparison.identical:
        return RecordCheck(tuple(faults), None, differing)
    if network.quantisation is not None and (comparison.mismatches or bundle.rounds_logits_once):
        faults.append(
            f"golden.npz is not the run of model.nir: {comparison.mismatches:,} spikes differ, and the logits by up to "
            f"{comparison.logit_difference:.3g}. In {network.numerics} none may."
        )
        return RecordCheck(tuple(faults), None, differing)
    local = check_local(network, golden.images, record, states=states, progress=progress)
    if local.violations:
        first = local.listed[0]
        faults.append(
            f"golden.npz is not the run of model.nir: {local.violations:,} of its spikes and logits are beyond "
            f"rounding, the first at {first.layer}, step {first.step}, sample {first.sample}, neuron {first.neuron}: "
            f"off by {abs(first.margin):.3g}, and rounding explains {first.bound:.3g}."
        )
    return RecordCheck(tuple(faults), local, differing)


def _label_faults(bundle: Bundle) -> list[str]:
    golden, told = bundle.golden, bundle.manifest.get("golden_correct")
    if golden.labels is None or told is None:
        return []
    correct = int((decisions(golden.trace.logits[-1]) == golden.labels).sum())
    if correct == told:
        return []
    return [
        f"golden.npz has labels or decisions that were altered: {correct} of its {len(golden.images)} samples "
        f"are classified correctly, and were {told} at the export."
    ]
