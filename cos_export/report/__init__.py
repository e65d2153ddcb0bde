"""The report: one self-contained page about a bundle."""

from cos_export.report.document import parity_summary, report_document
from cos_export.report.page import render_report, report_destination, save_report

__all__ = ["parity_summary", "render_report", "report_destination", "report_document", "save_report"]
