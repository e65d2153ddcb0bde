"""What capture has to say about each operation of a module, converted or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

__all__ = ["Finding", "Unsupported", "alike", "also", "blockers", "explain"]

_FEW = 3


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
        warning: What to know although it converts, or None.
    """

    module: str
    op: str
    line: str | None
    becomes: str
    blocker: str | None = None
    fix: str | None = None
    warning: str | None = None

    def to_dict(self) -> dict[str, str | None]:
        """The same as plain JSON."""
        return asdict(self)

    def __str__(self) -> str:
        where = self.module or "the model itself"
        if self.blocker is None:
            lines = [f"{where}: {self.op} -> {self.becomes}"]
        else:
            lines = [f"{where}: {self.op}: {self.blocker}"]
            if self.line is not None:
                lines.append(f"    in  {self.line}")
            if self.fix is not None:
                lines.append(f"    fix {self.fix}")
        if self.warning is not None:
            lines.append(f"    warning {self.warning}")
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


def alike(findings: Sequence[Finding]) -> list[list[Finding]]:
    """The findings in groups that say the same of the same operation, in the order of the first of each."""
    groups: dict[tuple[str, str | None, str | None], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.op.rstrip("_"), finding.blocker, finding.warning), []).append(finding)
    return list(groups.values())


def also(group: Sequence[Finding]) -> str:
    """Where else the first finding of a group applies."""
    return "also " + ", ".join(dict.fromkeys(finding.module or "the model itself" for finding in group[1:]))


def explain(model: str, findings: Sequence[Finding]) -> str:
    """All blockers as one message. What is said more than a few times is said once, with all places."""
    found = blockers(findings)
    count = "One thing" if len(found) == 1 else f"{len(found)} things"
    lines = [f"{model} cannot be turned into a spiking network. {count} must change:"]
    for group in alike(found):
        if len(group) > _FEW:
            lines += [f"  {group[0]}", f"    {also(group)}"]
        else:
            lines += [f"  {finding}" for finding in group]
    return "\n".join(lines)
