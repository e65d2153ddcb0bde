"""The check: what `capture` would make of each operation of a module, by the same code, and without a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from numpy.typing import ArrayLike
from torch import nn

from cos_export.capturing.findings import Finding, blockers
from cos_export.capturing.operators.rectifiers import check_keys
from cos_export.capturing.options import MaxPool, check_options
from cos_export.capturing.preparing import prepare
from cos_export.capturing.tracing import check_example
from cos_export.capturing.walk import walk
from cos_export.datasets import Images
from cos_export.errors import CosExportError
from cos_export.user_code import summary

__all__ = ["CheckResult", "check_model", "inspect_module"]


@dataclass(frozen=True)
class CheckResult:
    """What a check found.

    Attributes:
        findings: One for each operation on something that depends on the input, in the order in which they run, and
            for the model as a whole.
    """

    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether `capture` would succeed."""
        return not self.blockers

    @property
    def blockers(self) -> tuple[Finding, ...]:
        """What stands in its way."""
        return tuple(blockers(self.findings))

    @property
    def ran(self) -> bool:
        """Whether the module's own code ran on the example at all."""
        return not any(finding.op in ("copy", "forward") for finding in self.blockers)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What converts, with something to know about it."""
        return tuple(finding for finding in self.findings if finding.warning is not None)

    def to_dict(self) -> dict[str, object]:
        """The same as plain JSON."""
        return {
            "passed": self.passed,
            "blockers": len(self.blockers),
            "warnings": len(self.warnings),
            "findings": [finding.to_dict() for finding in self.findings],
        }


def check_model(
    module: nn.Module,
    example: Images,
    *,
    levels: int | None = None,
    thresholds: Mapping[str, ArrayLike] | None = None,
    max_pool: MaxPool = "exact",
    assume_thresholds: bool = False,
) -> CheckResult:
    """Every finding about a module. Whatever its code raises becomes a finding that blocks.

    Args:
        module: As for `capture`.
        example: As for `capture`.
        levels: As for `capture`.
        thresholds: As for `capture`.
        max_pool: As for `capture`.
        assume_thresholds: Whether thresholds of ReLUs will be computed from data later, so that a ReLU without one
            is a warning and does not block.

    Raises:
        InputError: The example is not one tensor of images, or an option is out of range.
    """
    options = check_options(levels, thresholds, max_pool, assume_thresholds=assume_thresholds)
    checked = check_example(example)
    try:
        traced = prepare(module, checked, options)
        if isinstance(traced, Finding):
            return CheckResult((traced,))
        check_keys(traced, options)
        return CheckResult(tuple(walk(traced, options).findings))
    except CosExportError:
        raise
    except Exception as error:  # noqa: BLE001 - a check lists what is wrong, and never ends in a traceback
        failure = f"the check itself failed ({summary(error)})"
        return CheckResult((Finding("", "check", None, "", failure, "report this model"),))


def inspect_module(
    model: nn.Module,
    example_input: Images,
    *,
    levels: int | None = None,
    thresholds: Mapping[str, ArrayLike] | None = None,
    max_pool: MaxPool = "exact",
) -> list[Finding]:
    """What `capture` would make of each operation of a module, by the same code.

    Returns:
        A finding for each operation, converted or not, in the order in which they run. `capture` succeeds if and
        only if none has a blocker.

    Raises:
        InputError: As for `check_model`.
    """
    return list(check_model(model, example_input, levels=levels, thresholds=thresholds, max_pool=max_pool).findings)
