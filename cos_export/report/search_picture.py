"""Accuracy over cost of every deployment that a search has measured, with the front, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

from cos_export.report.charts import COLOURS
from cos_export.report.picture import save_picture

__all__ = ["save_search_picture"]

_AXES = {
    "steps": ("total_steps", "steps per input, T_total = rho + T"),
    "latency": ("latency", "steps until the readout is complete"),
    "operations": ("operations", "synaptic operations per image"),
}

_FRAME = 30.0
"""Points below the artificial network that the frame reaches at most: one at chance flattens all others."""

_MARKERS = {"synchronous": "o", "layerwise": "^"}


def save_search_picture(path: Path, search: Mapping[str, Any]) -> Path:
    """Draws accuracy over the cost that is minimised.

    Args:
        path: A `.png`; the folder must exist.
        search: What `calibration.search.SearchOutcome.to_dict` returns.

    Raises:
        InputError: The file cannot be written there, or does not end in .png.
    """
    # A Figure without pyplot has no window, no global state and no display to need.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 5.0), layout="constrained")
    axes = figure.subplots()
    key, words = _AXES[search["minimise"]]
    ann = 100 * search["ann_accuracy"]
    names = dict.fromkeys((one["method"]["name"], one["schedule"]) for one in search["measured"])
    colours = dict(zip(dict.fromkeys(name for name, _ in names), cycle(COLOURS), strict=False))
    for name, schedule in names:
        rows = [one for one in search["measured"] if (one["method"]["name"], one["schedule"]) == (name, schedule)]
        axes.plot(
            [one[key] for one in rows],
            [100 * one["accuracy"] for one in rows],
            _MARKERS[schedule],
            color=colours[name],
            alpha=0.75,
            label=f"{name}, {schedule}",
        )
    front = search["front"]
    axes.plot(
        [one[key] for one in front],
        [100 * one["accuracy"] for one in front],
        drawstyle="steps-post",
        color="black",
        linewidth=1,
        label="front",
    )
    axes.axhline(ann, color="#555", linestyle="--", linewidth=1, label="artificial network")
    axes.axhline(ann - search["max_drop"], color="#c8553d", linestyle=":", linewidth=1.2, label="allowed drop")
    for mark in (search["winner"], search["nearest"]):
        if mark is not None:
            axes.plot(mark[key], 100 * mark["accuracy"], "o", ms=15, mfc="none", mec="#c8553d", mew=1.6)
            text = f"{mark['method']['name']}, T = {mark['steps']}"
            axes.annotate(text, (mark[key], 100 * mark["accuracy"]), (8, -16), textcoords="offset points", fontsize=9)
    axes.set_xlabel(words)
    axes.set_ylabel(f"accuracy on {search['held_out_samples']:,} images held out (%)")
    axes.set_ylim(bottom=max(axes.get_ylim()[0], ann - _FRAME))
    axes.grid(color="#ddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return save_picture(path, figure)
