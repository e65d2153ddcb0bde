"""The page itself."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from cos_export.atomic_file import atomic_write, check_derived_destination, check_file_destination
from cos_export.bundle import Bundle
from cos_export.errors import InputError
from cos_export.excerpt import excerpt
from cos_export.report.charts import accuracy_chart, firing_rate_chart, potential_chart

__all__ = ["render_report", "report_destination", "save_report"]


_MOST_LINES = 16
"""Methods in the picture of accuracies."""

_MOST_METHODS, _MOST_STEPS = 40, 12
"""Rows and columns of the table of accuracies; of more, so many are shown, evenly spread."""


_MOST_LAYERS, _MOST_LAYER_ROWS = 48, 400
"""Layers in a picture and in the table; ResNet-50 has 49."""


def render_report(document: Mapping[str, Any]) -> str:
    """The report of a bundle as HTML that needs no other file and no network.

    Args:
        document: What it is to say (`report_document`).
    """
    metrics = document["metrics"]
    measured = bool(metrics.get("methods"))
    rows = excerpt(metrics["methods"], _MOST_METHODS) if measured else []
    columns = excerpt(list(rows[0]["accuracy"]), _MOST_STEPS) if measured else []
    lines = excerpt(rows, _MOST_LINES)
    drawn = [{**row, "accuracy": {t: row["accuracy"][t] for t in columns}} for row in lines]
    beside = metrics.get("float32", {}).get("methods", [None])[-1] if measured else None
    potentials, rates = document["initial_potentials"], document["firing_rates"]
    return _template().render(
        document=document,
        metrics=metrics,
        measured=measured,
        rows=rows,
        columns=columns,
        beside=beside,
        measured_row=rows[-1] if measured else None,
        accuracy_chart=accuracy_chart({**metrics, "methods": drawn}) if measured else "",
        layers=excerpt(document["layers"], _MOST_LAYER_ROWS),
        drawn_layers=min(len(rates), _MOST_LAYERS),
        potential_chart=potential_chart({**potentials, "counts": _few_layers(potentials["counts"])}),
        firing_rate_chart=firing_rate_chart(_few_layers(rates)),
    )


@cache
def _template() -> Template:
    """Compiled once: that takes longer than to fill it in."""
    environment = Environment(
        loader=PackageLoader("cos_export.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["share"] = _share
    environment.filters["count"] = _count
    return environment.get_template("report.html.jinja")


_MARK = b"<title>cos-export report</title>"
"""What tells a report from other pages."""


def report_destination(bundle: Bundle, out: str | os.PathLike[str] | None = None) -> Path:
    """Where the report of a bundle is to be written.

    Beside the bundle unless a place is given, as `digits.report.html` of `digits`, for the manifest holds the SHA-256
    of the report inside, and nothing in a bundle is altered after its export.

    Args:
        bundle: The bundle.
        out: The place that was asked for.

    Raises:
        InputError: It is inside the bundle, is not a file or in no folder, or a file that is not a report is beside the
            bundle where no other place is given.
    """
    folder = bundle.path.resolve()
    if out is None:
        return check_derived_destination(folder.with_name(f"{folder.name}.report.html"), _MARK)
    place = Path(out)
    if place.resolve().is_relative_to(folder):
        raise InputError(
            f"{place} is inside the bundle {bundle.path}, which is not altered after its export: its manifest holds "
            "the SHA-256 of each file. Name a file outside of it."
        )
    if place.is_dir():
        raise InputError(f"{place} is a folder. Name the file of the report, as {place / 'report.html'}.")
    check_file_destination(place)
    return place


def save_report(path: Path, document: Mapping[str, Any]) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: Where to; a file that is there is replaced.
        document: What it is to say (`report_document`).

    Raises:
        InputError: The file cannot be written.
    """
    page = render_report(document)
    with atomic_write(path) as draft:
        # A name that no UTF-8 holds, as of a file, is shown as an escape.
        draft.write_bytes(page.encode("utf-8", "backslashreplace"))


def _few_layers(by_layer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: by_layer[name] for name in excerpt(list(by_layer), _MOST_LAYERS)}


def _share(value: Any) -> str:
    return html.escape(f"{100 * float(value):.1f}")


def _count(value: Any) -> str:
    """A mean of counts, to the unit."""
    return f"{float(value):,.0f}"
