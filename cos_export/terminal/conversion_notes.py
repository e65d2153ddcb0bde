"""What a conversion has to say beside its table: which method was taken and why, and what integers changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from cos_export.terminal.printable import words

__all__ = ["note_lines"]


def note_lines(metrics: Mapping[str, Any]) -> list[Text]:
    """Lines for rich, warnings last.

    Args:
        metrics: As the manifest has them.
    """
    lines = [*_selection(metrics["selection"])]
    warnings = [metrics["selection"]["warning"]] if metrics["selection"]["warning"] else []
    if "float32" in metrics:
        beside = metrics["float32"]
        last = beside["methods"][-1]
        here = metrics["methods"][-1]["accuracy"]
        shares = ", ".join(
            f"T = {steps}: {100 * share:.1f} ({100 * here[steps]:.1f} in integers)"
            for steps, share in last["accuracy"].items()
        )
        lines.append(f"float32, {last['method']}: accuracy (%) at {shares}")
        lines.append(
            f"The integers decide {100 * beside['agreement']:.1f} % of {beside['agreement_samples']} calibration "
            "images as float32 does"
        )
        warnings += beside.get("warnings", [])
    told = [Text("Warning: ", "yellow").append_text(words(warning, "default")) for warning in warnings]
    return [*map(words, lines), *told]


def _selection(selection: Mapping[str, Any]) -> list[str]:
    if selection["named"]:
        return []
    if not selection["samples"]:
        return [f"Method: {selection['chosen']}, for there were no images to compare methods on"]
    scores = ", ".join(
        f"{score['method']} {score['divergence']:.3g} ({100 * score['agreement']:.1f} %)"
        for score in selection["scores"]
    )
    lines = [
        f"Method: {selection['chosen']}, the closest to the artificial network on {selection['samples']} images held "
        f"out, by KL divergence (decided alike): {scores}"
    ]
    lines += [f"Not tried: {name}: {reason}" for name, reason in selection["skipped"].items()]
    return lines
