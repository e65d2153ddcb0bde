"""What a walk has to say about each operation that it comes to: one finding each, and those about the model."""

from __future__ import annotations

from torch import fx

from cos_export.capturing import averaging
from cos_export.capturing.findings import Finding, Unsupported, blockers
from cos_export.capturing.operators.rectifiers import rectifier_bound
from cos_export.capturing.rewriting.window_operator import WINDOW
from cos_export.capturing.tracing import PART_OF, REPLACED, Traced, module_path, operation, source_line

__all__ = ["Journal"]


class Journal:
    """The findings so far.

    Args:
        traced: The module whose operations they are about.

    Attributes:
        findings: In the order in which the operations run.
    """

    def __init__(self, traced: Traced) -> None:
        self.findings: list[Finding] = []
        self._recognition = traced.recognition
        self._blamed: set[str] = set()

    @property
    def blocked(self) -> bool:
        """Whether one of them stands in the way of a conversion."""
        return bool(blockers(self.findings))

    def converted(self, node: fx.Node, becomes: str, warning: str | None = None) -> None:
        """Notes what an operation becomes, with what recognition has to say of its module."""
        note = self._recognition.notes.get(module_path(node))
        self._add(node, becomes if note is None else f"{becomes}: {note}", warning=warning)

    def unchecked(self, node: fx.Node) -> None:
        """Notes an operation behind one that is refused, so that nothing is known of what it takes."""
        self._add(node, "nothing yet: it was not checked, for its input cannot be converted")

    def refused(self, node: fx.Node, error: Unsupported) -> None:
        """Notes an operation that nothing converts; for a module that resembles an activation, once for all of it."""
        path = module_path(node)
        suspicion = self._recognition.suspects.get(path)
        if suspicion is None:
            self._add(node, "", error.reason, error.fix)
        elif path not in self._blamed:
            # One finding for the module, and not one for each operation that it is made of.
            self._blamed.add(path)
            self._add(
                node,
                "",
                suspicion,
                "use cos_export.QCFS in its place; if it can also spike by itself, switch that off (T = 0)",
            )

    def refused_constant(self, node: fx.Node, error: Unsupported) -> None:
        """Notes an operation on what does not depend on the input, which fails."""
        self._add(node, "", error.reason, error.fix)

    def block_model(self, op: str, blocker: str, fix: str) -> None:
        """Notes what is wrong with the model as a whole."""
        self.findings.append(Finding("", op, None, "", blocker, fix))

    def _add(
        self,
        node: fx.Node,
        becomes: str,
        blocker: str | None = None,
        fix: str | None = None,
        warning: str | None = None,
    ) -> None:
        if PART_OF in node.meta and blocker is None and rectifier_bound(node) is None and node.target is not WINDOW:
            # Of an operation that is written as several, those that become neurons or read places say what it is.
            return
        if REPLACED in node.meta and blocker is None:
            warning = averaging.WARNING
        self.findings.append(
            Finding(module_path(node), operation(node), source_line(node), becomes, blocker, fix, warning)
        )
