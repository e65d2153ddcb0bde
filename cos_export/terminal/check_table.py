"""What people see of a check: a line for each operation, and below it every obstacle with its remedy."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from cos_export.capturing.checking import CheckResult
from cos_export.capturing.findings import Finding, alike, also
from cos_export.terminal.figure_table import Column, FigureTable, prose
from cos_export.terminal.printable import printable_message, words

__all__ = ["check_table"]


def check_table(result: CheckResult, name: str) -> Group:
    """The findings as a table, then the verdict, then each obstacle and warning in full.

    Args:
        result: From `check_model`.
        name: What the user called the model.
    """
    table = FigureTable(name, [prose("module"), Column("operation", justify="left"), prose("becomes")])
    for finding in result.findings:
        table.add_row(finding.module or "(the model)", finding.op, _outcome(finding))
    parts: list[FigureTable | Text] = [table, _verdict(result)]
    told = [finding for finding in result.findings if finding.blocker is not None or finding.warning is not None]
    parts += [_details(group) for group in alike(told)]
    return Group(*parts)


def _outcome(finding: Finding) -> Text:
    if finding.blocker is not None:
        return Text("BLOCKS", style="bold red")
    if finding.warning is not None:
        return words(f"{finding.becomes} (warning)", "yellow")
    return words(finding.becomes)


def _verdict(result: CheckResult) -> Text:
    total, blocking, warned = len(result.findings), len(result.blockers), len(result.warnings)
    warnings = f", {warned} with a warning" if warned else ""
    if result.passed:
        return Text(f"{total} operations, nothing blocks{warnings}", style="green")
    verb = "blocks" if blocking == 1 else "block"
    return Text(f"{blocking} of {total} operations {verb}{warnings}", style="bold red")


def _details(group: list[Finding]) -> Text:
    """The finding's own words, once for all places where they hold."""
    first = group[0]
    text = words(f"\n{first.module or 'the model itself'}: {first.op}", "bold")
    for label, said, style in (
        ("", first.blocker, "red"),
        ("in  ", first.line, "dim"),
        ("fix ", first.fix, ""),
        ("warning ", first.warning, "yellow"),
        ("", also(group) if len(group) > 1 else None, "dim"),
    ):
        if said is not None:
            text.append(printable_message(f"\n  {label}{said}"), style=f"not bold {style}")
    return text
