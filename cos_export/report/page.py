"""The page itself."""

from __future__ import annotations

import html
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cos_export.bundle import Bundle
from cos_export.parity.verification import ParityResult
from cos_export.report.charts import accuracy_chart, firing_rate_chart, potential_chart

__all__ = ["render_report"]


def render_report(bundle: Bundle, parity: ParityResult | None) -> str:
    """The report of a bundle as HTML that needs no other file and no network.

    Args:
        bundle: The bundle, with its manifest but for the list of files.
        parity: What the targets fired, or None if none were run.
    """
    environment = Environment(
        loader=PackageLoader("cos_export.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["share"] = _share
    metrics = bundle.manifest["metrics"]
    measured = bool(metrics.get("methods"))
    return environment.get_template("report.html.jinja").render(
        manifest=bundle.manifest,
        metrics=metrics,
        measured=measured,
        columns=list(metrics["methods"][0]["accuracy"]) if measured else [],
        parity=parity,
        accuracy_chart=accuracy_chart(metrics) if measured else "",
        potential_chart=potential_chart(bundle.network),
        firing_rate_chart=firing_rate_chart(bundle.network, bundle.golden.trace),
    )


def _share(value: Any) -> str:
    return html.escape(f"{100 * float(value):.1f}")
