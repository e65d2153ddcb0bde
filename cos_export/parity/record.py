"""Whether the recorded run of a bundle is its network's: a target that agrees with a wrong record proves nothing."""

from __future__ import annotations

from cos_export.bundle import Bundle
from cos_export.parity.comparison import compare
from cos_export.parity.local import LocalResult, check_local
from cos_export.progress import Progress, silent
from cos_export.simulation import simulate

__all__ = ["check_record"]


def check_record(bundle: Bundle, *, progress: Progress = silent) -> tuple[tuple[str, ...], LocalResult | None]:
    """Runs the golden inputs in PyTorch once more and compares the record with it.

    A record of the same spikes and logits, bit for bit, is right. In fixed point any other is wrong; in float32 one
    of another machine may differ, and must then pass the local check: no spike and no logit beyond rounding.

    Args:
        bundle: Its network, golden run and manifest are read.
        progress: Told as it goes on.

    Returns:
        What is wrong with the record, a sentence each, and the local check of it if one was made.

    Raises:
        BundleError: The bundle is damaged.
    """
    network, golden = bundle.network, bundle.golden
    record, faults = golden.trace, []
    if golden.labels is not None and bundle.manifest.get("golden_correct") is not None:
        correct, told = int((record.logits[-1].argmax(-1) == golden.labels).sum()), bundle.manifest["golden_correct"]
        if correct != told:
            faults.append(
                f"golden.npz has labels or decisions that were altered: {correct} of its {len(golden.images)} samples "
                f"are classified correctly, and were {told} at the export."
            )
    again = simulate(network, golden.images, record.steps, states=record.states, device="cpu", progress=progress)
    comparison = compare(network, golden.images, record, again)
    if comparison.identical:
        return tuple(faults), None
    if network.quantisation is not None:
        faults.append(
            f"golden.npz is not the run of model.nir: {comparison.mismatches:,} spikes differ, and the logits by up to "
            f"{comparison.logit_difference:.3g}. In {network.numerics} none may."
        )
        return tuple(faults), None
    local = check_local(network, golden.images, record, states=record.states, progress=progress)
    if local.violations:
        first = local.listed[0]
        faults.append(
            f"golden.npz is not the run of model.nir: {local.violations:,} of its spikes and logits are beyond "
            f"rounding, the first at {first.layer}, step {first.step}, sample {first.sample}, neuron {first.neuron}: "
            f"off by {abs(first.margin):.3g}, and rounding explains {first.bound:.3g}."
        )
    return tuple(faults), local
