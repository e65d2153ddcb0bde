"""The tables of what benchmarks/accuracy.py has measured: by T, at equal cost, and of the layer-wise schedule."""

from __future__ import annotations

from typing import Any

from cos_export.accuracy import READOUTS

__all__ = ["LAYERWISE", "at_equal_cost", "layerwise_table", "markdown", "synchronous"]

LAYERWISE = "(layerwise)"
"""What ends the name of a row whose layers fire one after the other."""


def layerwise_table(document: dict[str, Any]) -> str:
    """The rows whose layers fire one after the other, by T; "" if there are none."""
    rows = [row for row in document["methods"] if row["method"].endswith(LAYERWISE)]
    columns = sorted({int(t) for row in rows for t in row["accuracy"]})
    if not rows:
        return ""
    lines = ["| method | " + " | ".join(f"T = {t}" for t in columns) + " |", "| --- |" + " --- |" * len(columns)]
    for row in rows:
        cells = [_share(row, str(t)) if str(t) in row["accuracy"] else "" for t in columns]
        lines.append(f"| `{row['method']}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def synchronous(document: dict[str, Any]) -> dict[str, Any]:
    """The document without its layer-wise rows, whose cost is not their number of steps."""
    return document | {"methods": [row for row in document["methods"] if not row["method"].endswith(LAYERWISE)]}


def markdown(document: dict[str, Any]) -> str:
    """The table: T in the columns, T_total in brackets where it differs, the spread of seeds behind a plus-minus."""
    lines = ["| method | extra steps | " + " | ".join(f"T = {t}" for t in READOUTS) + " |"]
    lines.append("| --- | --- |" + " --- |" * len(READOUTS))
    for row in document["methods"]:
        if row["method"].endswith(LAYERWISE):
            continue
        cells = [_cell(row, str(t)) for t in READOUTS]
        lines.append(f"| `{row['method']}` | {row['rho']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: dict[str, Any], t: str) -> str:
    if t not in row["accuracy"]:
        return ""
    return _share(row, t) + (f" ({int(t) + row['rho']})" if row["rho"] else "")


def _share(row: dict[str, Any], t: str) -> str:
    """The accuracy in per cent, and half the range of the seeds if there are several."""
    spread = f" +- {100 * row['spread'][t]:.2f}" if t in row["spread"] else ""
    return f"{100 * row['accuracy'][t]:.2f}{spread}"


def at_equal_cost(document: dict[str, Any]) -> str:
    """The second table: per-sample methods by T_total, each kind of `static` at the largest T that costs no more."""
    per_sample = [row for row in document["methods"] if row["rho"]]
    fixed = [
        row
        for row in document["methods"]
        if row["method"].startswith("static") and not row["method"].endswith(LAYERWISE) and row["accuracy"]
    ]
    costs = sorted({int(t) + row["rho"] for row in per_sample for t in row["accuracy"]})
    if not per_sample or not fixed:
        return ""
    lines = ["| method | " + " | ".join(f"{cost} steps" for cost in costs) + " |", "| --- |" + " --- |" * len(costs)]
    for row in (*fixed, *per_sample):
        measured = [int(t) for t in row["accuracy"]]
        cells = []
        for cost in costs:
            t = max((t for t in measured if t + row["rho"] <= cost), default=None)
            cells.append("" if t is None else f"{_share(row, str(t))} (T = {t})")
        lines.append(f"| `{row['method']}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)
