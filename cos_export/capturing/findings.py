"""What capture has to say about each operation of a module, converted or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Finding", "Unsupported", "blockers", "explain"]


@dataclass(frozen=True)
class Finding:
    """One operation of the module, and what it becomes.

    Attributes:
        module: The path of the submodule that does it, "" for the module itself.
        op: The operation, as PyTorch calls it: "conv2d", "relu".
        line: The user's source line, "file:number: code", or None if it is not known.
        becomes: What it is turned into; empty if it blocks.
        blocker: Why it has no spiking equivalent, or None if it has one.
        fix: What to do about the blocker.
    """

    module: str
    op: str
    line: str | None
    becomes: str
    blocker: str | None = None
    fix: str | None = None

    def __str__(self) -> str:
        where = self.module or "the model itself"
        if self.blocker is None:
            return f"{where}: {self.op} -> {self.becomes}"
        lines = [f"{where}: {self.op}: {self.blocker}"]
        if self.line is not None:
            lines.append(f"    in  {self.line}")
        if self.fix is not None:
            lines.append(f"    fix {self.fix}")
        return "\n".join(lines)


class Unsupported(Exception):  # noqa: N818 - never leaves this folder: it becomes a finding
    """Raised inside an operator that cannot be converted.

    Args:
        reason: Why.
        fix: What the user can do.
    """

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fix = fix


def blockers(findings: Sequence[Finding]) -> list[Finding]:
    """The findings that stand in the way of a conversion."""
    return [finding for finding in findings if finding.blocker is not None]


def explain(model: str, findings: Sequence[Finding]) -> str:
    """All blockers as one message."""
    found = blockers(findings)
    count = "One thing" if len(found) == 1 else f"{len(found)} things"
    listed = "\n".join(f"  {finding}" for finding in found)
    return f"{model} cannot be turned into a spiking network. {count} must change:\n{listed}"
