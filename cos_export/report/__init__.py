"""The report: one self-contained page about a bundle."""

from cos_export.report.page import render_report

__all__ = ["render_report"]
