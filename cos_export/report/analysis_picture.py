"""The errors of every layer and their effect at the output, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cos_export.excerpt import excerpt
from cos_export.report.charts import COLOURS, plain_text
from cos_export.report.picture import save_picture

__all__ = ["save_analysis_picture"]

COLOUR_OF = dict(zip(("clipping", "levels", "timing"), COLOURS, strict=False))

_MOST_LAYERS = 160
"""Layers that are drawn; of more, so many, evenly spread. ResNet-152 has 151."""

_LONGEST = 32
"""Letters of a layer's name that are shown: its end tells more than its beginning."""


def save_analysis_picture(path: Path, analysis: Mapping[str, Any]) -> Path:
    """Draws the local split of each layer as bars, and the KL divergences that it alone causes, layer below layer.

    Args:
        path: A `.png`; the folder must exist.
        analysis: What `cos_export.analysis.LayerErrors.to_dict` returns.

    Raises:
        InputError: The file cannot be written there, or does not end in .png.
    """
    # A Figure without pyplot has no window, no global state and no display to need.
    from matplotlib.figure import Figure

    every: Mapping[str, Mapping[str, Any]] = analysis["layers"]
    drawn = {*excerpt(list(every), _MOST_LAYERS), analysis["worst"]}
    layers = {name: row for name, row in every.items() if name in drawn}
    figure = Figure(figsize=(11.0, 2.2 + 0.27 * len(layers)), layout="constrained")
    figure.suptitle(
        f"{plain_text(analysis['method'])}, {analysis['schedule']}, T = {analysis['steps']}, "
        f"{analysis['samples']:,} images",
        fontweight="bold",
    )
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.25, 1.0))
    _draw_splits(left, layers)
    _draw_divergences(right, layers, analysis["networks"]["spiking"]["divergence"])
    names = [name if len(name) <= _LONGEST else "\N{HORIZONTAL ELLIPSIS}" + name[1 - _LONGEST :] for name in layers]
    left.set_yticks(range(len(layers)), list(map(plain_text, names)), fontsize=8)
    for name, label in zip(layers, left.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if name == analysis["worst"] else "normal")
    left.set_ylim(len(layers) - 0.4, -0.6)
    return save_picture(path, figure)


def _draw_splits(axes: Any, layers: Mapping[str, Mapping[str, Any]]) -> None:
    places, begin = range(len(layers)), [0.0] * len(layers)
    for cause, colour in COLOUR_OF.items():
        widths = [row["local"][cause] for row in layers.values()]
        axes.barh(places, widths, 0.72, left=begin, color=colour, label=cause)
        begin = [one + other for one, other in zip(begin, widths, strict=True)]
    totals = [row["local"]["total"] for row in layers.values()]
    axes.plot(totals, places, "|", color="black", markersize=9, markeredgewidth=1.6, label="total, with cross terms")
    axes.set_xlabel(r"mean square error of the layer itself ($\theta^2$)")
    axes.grid(axis="x", color="#ddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, ncols=4, fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2)


def _draw_divergences(axes: Any, layers: Mapping[str, Mapping[str, Any]], whole: float) -> None:
    places = range(len(layers))
    for key, marker, colour, label in (
        ("alone", "o", COLOURS[2], "it alone spikes"),
        ("repaired", "D", COLOURS[3], "all spike but it"),
        ("unclipped", "x", COLOURS[0], "it alone is not clipped"),
    ):
        axes.plot([row["divergence"][key] for row in layers.values()], places, marker, color=colour, ms=5, label=label)
    axes.axvline(whole, color="#555", linestyle="--", linewidth=1, label="all spike")
    # What a layer does alone is often a thousandth of what all do together; below that it does nothing.
    axes.set_xscale("symlog", linthresh=1e-4)
    axes.set_xlim(0, 1.6 * axes.get_xlim()[1])
    axes.set_xlabel("KL from the clipped network at the output (nats)")
    axes.grid(axis="both", color="#ddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, ncols=2, fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2)
