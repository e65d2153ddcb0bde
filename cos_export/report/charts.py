"""The report's pictures, as SVG text that goes into the page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from cos_export.excerpt import excerpt
from cos_export.terminal.printable import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["accuracy_chart", "firing_rate_chart", "plain_text", "potential_chart", "svg"]

COLOURS = ("#0b6e4f", "#c8553d", "#3d5a80", "#8a6d1d", "#7b2d8b", "#1b9aaa", "#d81159", "#6b705c", "#e09f3e", "#111111")

_FRAME = 50
"""Percent below the artificial network that the accuracies' frame reaches: one method at chance flattens all others."""

_NUMBERED = 16
"""Steps whose firing rates stand in the picture as numbers."""

_INSIDE = 4
"""Methods whose names fit among the lines; those of more stand beside them."""


def plain_text(name: str) -> str:
    """A name as matplotlib shows it letter for letter: what stands between two dollars would be a formula."""
    return printable(name).replace("$", r"\$")


def accuracy_chart(metrics: Mapping[str, Any]) -> str:
    """Accuracy by the steps that one input costs, one line per method, the artificial network as a dashed line.

    Args:
        metrics: The manifest's metrics: `ann_accuracy` and `methods`, each with `rho` and `accuracy` by T.
    """
    crowded = len(metrics["methods"]) > _INSIDE
    figure = _figure(9.0 if crowded else 6.4, 3.6)
    axes = figure.subplots()
    floor = 100 * metrics["ann_accuracy"] - _FRAME
    for colour, row in zip(cycle(COLOURS), metrics["methods"], strict=False):
        steps = [int(t) for t in row["accuracy"]]
        method = plain_text(row["method"])
        label = method if row["rho"] == 0 else f"{method} (+{row['rho']} steps per sample)"
        shares = [100 * value for value in row["accuracy"].values()]
        if max(shares) < floor:
            axes.plot([], [], "o-", color=colour, label=f"{label}, below the frame")
        else:
            axes.plot([t + row["rho"] for t in steps], shares, "o-", color=colour, label=label)
    axes.axhline(100 * metrics["ann_accuracy"], color="#555", linestyle="--", linewidth=1, label="artificial network")
    axes.set_xlabel("steps per input, pre-simulation included")
    axes.set_ylabel("test accuracy (%)")
    if axes.get_ylim()[0] < floor:
        axes.set_ylim(bottom=floor)
    axes.set_xscale("log", base=2)
    ticks = sorted({int(t) + row["rho"] for row in metrics["methods"] for t in row["accuracy"]})
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    if crowded:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    else:
        axes.legend(frameon=False)
    return svg(figure)


def potential_chart(histograms: Mapping[str, Any]) -> str:
    """The initial potentials of each layer in units of its threshold.

    Args:
        histograms: `edges` of the bins, and `counts` by layer.
    """
    counts = histograms["counts"]
    figure = _figure(6.4, 1.0 + 0.4 * len(counts))
    # One pair of axes for all layers: the layout of as many axes as a DenseNet has layers takes a minute.
    axes = figure.subplots()
    for row, count in enumerate(counts.values()):
        heights = np.asarray(count, np.float64)
        heights *= 0.9 / max(heights.max(initial=0.0), 1.0)
        # Downwards from the top, and each histogram upwards from its line.
        axes.stairs(heights - row, histograms["edges"], baseline=-row, fill=True, color=COLOURS[0])
        axes.axhline(-row, color="#555", linewidth=0.5)
    axes.axvline(0.5, color="#c8553d", linewidth=1)
    axes.set_ylim(-len(counts) + 0.9, 1.0)
    axes.set_yticks([-row for row in range(len(counts))], list(map(plain_text, counts)), fontsize=8)
    axes.set_xlabel("initial potential / threshold (line: one half)")
    return svg(figure)


def firing_rate_chart(shares: Mapping[str, Sequence[float]]) -> str:
    """The share of neurons that fired.

    Args:
        shares: By layer, one for each step.
    """
    rates = 100 * np.array(list(shares.values()))
    steps = rates.shape[1]
    ticks = excerpt(range(steps), 16)
    figure = _figure(6.4, 1.2 + 0.32 * len(shares))
    axes = figure.subplots()
    image = axes.imshow(rates, aspect="auto", cmap="YlGn", vmin=0)
    axes.set_yticks(range(len(shares)), list(map(plain_text, shares)), fontsize=8)
    axes.set_xticks(ticks, [str(t + 1) for t in ticks])
    axes.set_xlabel("step")
    bright = rates.max(initial=0.0) / 2
    for (row, column), rate in np.ndenumerate(rates if steps <= _NUMBERED else rates[:, :0]):
        colour = "white" if rate > bright else "black"
        axes.text(column, row, f"{rate:.1f}", ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(image, ax=axes, label="neurons that fire (%)")
    return svg(figure)


def _figure(width: float, height: float) -> Figure:
    # A Figure without pyplot has no window, no global state and no display to need.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def svg(figure: Figure) -> str:
    """A figure as the text of an SVG element, the same to the byte whenever it is drawn."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "cos-export", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
