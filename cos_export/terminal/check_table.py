"""What people see of a check: a line for each operation, and below it every obstacle with its remedy."""

from __future__ import annotations

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cos_export.capturing.checking import CheckResult
from cos_export.capturing.findings import Finding, alike, also

__all__ = ["check_table"]


def check_table(result: CheckResult, name: str) -> Group:
    """The findings as a table, then the verdict, then each obstacle and warning in full.

    Args:
        result: From `check_model`.
        name: What the user called the model.
    """
    table = Table(
        title=escape(name),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("module", overflow="fold")
    table.add_column("operation", no_wrap=True)
    table.add_column("becomes", overflow="fold", ratio=1)
    for finding in result.findings:
        table.add_row(escape(finding.module or "(the model)"), escape(finding.op), _outcome(finding))
    parts: list[Table | Text] = [table, _verdict(result)]
    told = [finding for finding in result.findings if finding.blocker is not None or finding.warning is not None]
    parts += [_details(group) for group in alike(told)]
    return Group(*parts)


def _outcome(finding: Finding) -> Text:
    if finding.blocker is not None:
        return Text("BLOCKS", style="bold red")
    if finding.warning is not None:
        return Text(f"{finding.becomes} (warning)", style="yellow")
    return Text(finding.becomes)


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
    text = Text(f"\n{first.module or 'the model itself'}: {first.op}", style="bold")
    for label, words, style in (
        ("", first.blocker, "red"),
        ("in  ", first.line, "dim"),
        ("fix ", first.fix, ""),
        ("warning ", first.warning, "yellow"),
        ("", also(group) if len(group) > 1 else None, "dim"),
    ):
        if words is not None:
            text.append(f"\n  {label}{words}", style=f"not bold {style}")
    return text
