"""Offset spikes before and after their calibration, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cos_export.excerpt import excerpt
from cos_export.report.charts import COLOURS, plain_text
from cos_export.report.picture import save_picture

__all__ = ["save_offset_picture"]

_MOST_NUMBERS = 40
"""Layers whose numbers stand at the axis."""

HISTOGRAMS = 6
"""Layers whose histogram is drawn: more would be too small to read."""


def save_offset_picture(path: Path, statistics: Mapping[str, Any]) -> Path:
    """Draws the share of neurons without an offset by layer, and the histogram of psi of up to six layers.

    Args:
        path: A `.png`; the folder must exist.
        statistics: What `calibration.offset_spikes.OffsetSpikes.to_dict` returns.

    Raises:
        InputError: The file cannot be written there, or does not end in .png.
    """
    # A Figure without pyplot has no window, no global state and no display to need.
    from matplotlib.figure import Figure

    layers: Mapping[str, Mapping[str, Any]] = statistics["layers"]
    names = list(layers)
    iterations = list(layers[names[0]])
    shown = _most_offset([rows[iterations[0]]["no_offset"] for rows in layers.values()])
    psi = _occurring(statistics["psi"], [rows[k]["counts"] for rows in layers.values() for k in iterations])
    figure = Figure(figsize=(10.0, 7.6), layout="constrained")
    figure.suptitle(
        f"Offset spikes over rho = {statistics['rho']} steps, {statistics['samples']:,} images", fontweight="bold"
    )
    top, bottom = np.ravel(figure.subfigures(2, 1, height_ratios=(1.0, 1.35), squeeze=False))
    _draw_shares(top.subplots(), layers, iterations, shown)
    columns = min(3, len(shown))
    grid = bottom.subplots(-(-len(shown) // columns), columns, sharex=True, sharey=True, squeeze=False)
    for axes, number in zip(grid.flat, shown, strict=False):
        _draw_histogram(axes, layers[names[number]], iterations, statistics["psi"])
        axes.set_xlim(psi[0] - 0.6, psi[-1] + 0.6)
        axes.set_xticks(psi, [f"{value:+d}" if value else "0" for value in psi])
        axes.set_title(f"layer {number + 1}: {plain_text(names[number])}", fontsize=9)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("neurons (%)")
    for axes in list(grid.flat)[: len(shown)][-columns:]:
        # Axes that are shared label the last row alone, which may have fewer columns.
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("psi: spikes too few (> 0) or too many (< 0)", fontsize=9)
    return save_picture(path, figure)


def _most_offset(shares: Sequence[float]) -> list[int]:
    """The layers where the fewest neurons have no offset, in the order of the network."""
    return sorted(sorted(range(len(shares)), key=lambda number: shares[number])[:HISTOGRAMS])


def _occurring(psi: Sequence[int], counts: Sequence[Sequence[int]]) -> list[int]:
    """The part of psi, the same to both sides of 0, that anything was counted in."""
    widest = max(abs(value) for row in counts for value, count in zip(psi, row, strict=True) if count)
    return [value for value in psi if abs(value) <= max(1, widest)]


def _label(iterations: str) -> str:
    return "before" if iterations == "0" else f"COS x{iterations}"


def _draw_shares(
    axes: Any, layers: Mapping[str, Mapping[str, Any]], iterations: Sequence[str], shown: Sequence[int]
) -> None:
    places = range(1, len(layers) + 1)
    for colour, marker, k in zip(_colours(iterations), "osD^v", iterations, strict=False):
        shares = [100 * rows[k]["no_offset"] for rows in layers.values()]
        axes.plot(places, shares, marker=marker, markersize=4, linewidth=1.2, color=colour, label=_label(k))
    axes.set_ylabel("neurons with psi = 0 (%)")
    axes.set_xlabel("layer" if len(shown) == len(layers) else f"layer (dark: the {len(shown)} with most offsets)")
    axes.set_xticks(excerpt(places, _MOST_NUMBERS))
    for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
        label.set_color("black" if place - 1 in shown else "#aaa")
    axes.grid(axis="y", color="#ddd", linewidth=0.6)
    axes.legend(frameon=False, ncols=len(iterations), loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2)


def _draw_histogram(axes: Any, rows: Mapping[str, Any], iterations: Sequence[str], psi: Sequence[int]) -> None:
    width = 0.84 / len(iterations)
    for number, (colour, k) in enumerate(zip(_colours(iterations), iterations, strict=True)):
        counts = rows[k]["counts"]
        shares = [100 * count / sum(counts) for count in counts]
        left = [value - 0.42 + (number + 0.5) * width for value in psi]
        axes.bar(left, shares, width, color=colour)
    # Most neurons have no offset: on a linear scale nothing else would be seen.
    axes.set_yscale("log")
    axes.set_ylim(0.01, 100)
    axes.set_yticks([0.01, 0.1, 1, 10, 100], ["0.01", "0.1", "1", "10", "100"])
    axes.minorticks_off()
    axes.grid(axis="y", color="#ddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _colours(iterations: Sequence[str]) -> list[str]:
    """Grey is the network as it is."""
    rest = iter(COLOURS * len(iterations))
    return ["#9a9a9a" if k == "0" else next(rest) for k in iterations]
