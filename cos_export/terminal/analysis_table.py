"""What people see of `analyze`: a line for each layer, and in words which of them costs most, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cos_export.terminal.figure_table import Column, FigureTable, figures, prose
from cos_export.terminal.printable import words

__all__ = ["analysis_lines", "analysis_table"]


def analysis_table(analysis: Mapping[str, Any], name: str) -> FigureTable:
    """The local split in thousandths of theta^2, and the divergences in thousandths of a nat, by layer.

    Args:
        analysis: What `cos_export.analysis.LayerErrors.to_dict` returns.
        name: What the user called the network.
    """
    heads = ("clipping", "levels", "timing", "total", "with\ninputs", "KL\nalone", "KL\nall but", "KL un-\nclipped")
    table = FigureTable(
        f"Errors of {name} by layer, {analysis['method']}, {analysis['schedule']}, T = {analysis['steps']}, "
        f"{analysis['samples']:,} images",
        [prose("layer"), *figures(*heads), Column("mostly", justify="left")],
        caption="Clipping, levels, timing: mean squares of what the layer itself gets wrong about the inputs that it "
        "has, in thousandths of theta^2;\ntotal: with their cross terms; with inputs: and with what the layers before "
        "it get wrong.\nKL at the output from the network that is clipped in all layers, in thousandths of a nat: it "
        "alone spikes; all spike but it; it alone is not clipped.",
    )
    for layer, row in analysis["layers"].items():
        local, effect = row["local"], row["divergence"]
        values = [local[key] for key in ("clipping", "levels", "timing", "total")]
        values += [row["own"]["total"], effect["alone"], effect["repaired"], effect["unclipped"]]
        style = "bold" if layer == analysis["worst"] else ""
        cells = (layer, *(f"{1000 * value:.2f}" for value in values), local["cause"])
        table.add_row(*(words(cell, style) for cell in cells))
    return table


def analysis_lines(analysis: Mapping[str, Any]) -> list[str]:
    """The four networks, and which layer costs most."""
    networks = ", ".join(f"{kind} {_output(output)}" for kind, output in analysis["networks"].items())
    worst, whole = analysis["worst"], analysis["networks"]["spiking"]["divergence"]
    rows = analysis["layers"]
    row = rows[worst]
    without = row["divergence"]["repaired"]
    lines = [f"All layers: {networks}."]
    if without < whole:
        lines.append(
            f"Layer {worst!r} costs most: if it alone did not spike, the output would be at KL {without:.3g} from the "
            f"clipped network, where it is at {whole:.3g}. Its own error is mostly {_causes(row)}."
        )
    else:
        lines.append(f"No layer costs anything: with all layers spiking the output is at KL {whole:.3g}, and no less.")
    free = {name: found["divergence"]["unclipped"] for name, found in rows.items() if not found["trained_clipped"]}
    narrow = max(free, key=lambda name: free[name], default=None)
    if narrow is not None and free[narrow] > whole:
        lines.append(
            f"The threshold of layer {narrow!r} is too low for its activations: what it clips moves the output by KL "
            f"{free[narrow]:.3g}, more than all spikes do."
        )
    return lines


def _causes(row: Mapping[str, Any]) -> str:
    """The largest part of a layer's own error; beside clipping that its training knew of, the next."""
    local = row["local"]
    if local["cause"] != "clipping" or not row["trained_clipped"]:
        return str(local["cause"])
    return f"clipping, which it was trained with, then {max(('levels', 'timing'), key=lambda name: local[name])}"


def _output(output: Mapping[str, Any]) -> str:
    share = "" if output["accuracy"] is None else f"{100 * output['accuracy']:.2f} %, "
    return f"({share}KL {output['divergence']:.3g})"
