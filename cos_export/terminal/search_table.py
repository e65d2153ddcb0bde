"""What people see of `search`: a line for each deployment that was measured, and which is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

__all__ = ["deployed_line", "deployment_words", "search_lines", "search_table"]

COSTS = {"steps": "total_steps", "latency": "latency", "operations": "operations"}
"""The figure of a measured deployment that is minimised, by what it is called on the command line."""


def search_table(search: Mapping[str, Any]) -> Table:
    """Every deployment by rising cost.

    Args:
        search: What `calibration.search.SearchOutcome.to_dict` returns.
    """
    table = Table(
        title=f"Deployments by {search['minimise']}, on {search['held_out_samples']:,} images held out; accuracy in %, "
        f"of the artificial network {100 * search['ann_accuracy']:.2f}",
        title_justify="left",
        title_style="bold",
        caption="> the one that is taken, or comes nearest; in bold the front: nothing is as cheap and more accurate. "
        "Steps: T, or rho + T.\nDrop: points of accuracy below the artificial network, with the standard error. "
        "Latency: steps until the readout\nis complete. Operations: additions and products of one image, in thousands.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", no_wrap=True)
    table.add_column("method", no_wrap=True)
    table.add_column("schedule", no_wrap=True)
    ruled = any(one["thresholds"] for one in search["measured"])
    if ruled:
        table.add_column("thresholds", no_wrap=True)
    for name in ("steps", "accuracy", "drop", "latency", "operations"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in search["measured"]:
        rho = one["total_steps"] - one["steps"]
        table.add_row(
            ">" if one in (search["winner"], search["nearest"]) else "",
            one["method"]["name"],
            one["schedule"],
            *([one["thresholds"] or ""] if ruled else []),
            f"{rho} + {one['steps']}" if rho else str(one["steps"]),
            f"{100 * one['accuracy']:.2f}",
            f"{one['drop']:.2f} ± {one['drop_error']:.2f}",
            f"{one['latency']:,.0f}",
            f"{one['operations'] / 1000:,.0f}",
            style="bold" if one in search["front"] else "",
        )
    return table


def search_lines(search: Mapping[str, Any]) -> list[str]:
    """Which deployment is taken, or what comes nearest, and what could not be measured."""
    cost, winner, nearest = search["minimise"], search["winner"], search["nearest"]
    lines = [f"{deployment_words(one)} could not be measured: {one['failure']}" for one in search["failed"]]
    if winner is not None:
        lines.append(
            f"The least {cost} within a drop of {search['max_drop']:g} points has {deployment_words(winner)}: "
            f"{cost} {winner[COSTS[cost]]:,.0f}, drop {winner['drop']:.2f} points."
        )
    elif nearest is not None:
        lines.append(
            f"Nothing loses at most {search['max_drop']:g} points, so no bundle is written. Nearest is "
            f"{deployment_words(nearest)}: {nearest['drop']:.2f} points, {cost} {nearest[COSTS[cost]]:,.0f}. Allow a "
            "larger --max-drop, more --steps, or --methods that are tuned, as static."
        )
    else:
        lines.append("Nothing could be measured.")
    return lines


def deployed_line(manifest: Mapping[str, Any]) -> str:
    """What the deployment that was taken loses on the images that decided nothing.

    Args:
        manifest: Of its bundle.
    """
    metrics, steps = manifest["metrics"], manifest["num_timesteps"]
    ann, accuracy = metrics["ann_accuracy"], metrics["methods"][-1]["accuracy"][str(steps)]
    before = metrics["search"]["winner"]["drop"]
    return (
        f"On {metrics['dataset']}, which decided nothing: {100 * accuracy:.2f} %, {100 * (ann - accuracy):.2f} points "
        f"below the artificial network's {100 * ann:.2f} % ({before:.2f} on the images held out)."
    )


def deployment_words(one: Mapping[str, Any]) -> str:
    """A measured deployment in words."""
    extra = one["total_steps"] - one["steps"] if one["total_steps"] is not None else 0
    beside = f", rho = {extra}" if extra else ""
    rule = f", thresholds by {one['thresholds']}" if one["thresholds"] else ""
    return f"{one['method']['name']}, T = {one['steps']}{beside}, {one['schedule']}{rule}"
