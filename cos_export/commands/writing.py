"""What every command that makes a bundle does at its end: convert, write, run targets, show what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cos_export.bounds import LEAST_OPSET
from cos_export.terminal.output import show_notes
from cos_export.terminal.quiet import is_quiet
from cos_export.terminal.standard_output import console

if TYPE_CHECKING:  # what is slow to import is imported by the command that needs it
    from collections.abc import Mapping, Sequence

    from calibration.choices import Choices
    from calibration.conversion import Conversion
    from calibration.data_parts import DataParts
    from cos_export.bundle import Bundle
    from cos_export.bundle.target import Target
    from cos_export.parity.verification import ParityResult
    from cos_export.progress import Progress
    from cos_export.zoo.model_source import Model

__all__ = ["Written", "convert_and_write", "resume_file", "show_written"]


@dataclass(frozen=True)
class Written:
    """A bundle in its place.

    Attributes:
        conversion: What was measured.
        bundle: The bundle.
        parity: Of its targets, if it was run on any.
    """

    conversion: Conversion
    bundle: Bundle
    parity: ParityResult | None

    @property
    def passed(self) -> bool:
        """Whether every target ran, and none differed."""
        return self.parity is None or self.parity.passed

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return 0 if self.parity is None else self.parity.exit_code

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {"bundle": str(self.bundle.path), **self.bundle.manifest}


def resume_file(destination: Path) -> Path:
    """The state of a calibration: beside the bundle and not in it, for a bundle is there whole or not at all."""
    from cos_export.storage import resolved

    return resolved(destination.with_name(f"{destination.name}.resume.safetensors"))


def convert_and_write(
    model: Model,
    parts: DataParts,
    choices: Choices,
    out: Path,
    *,
    golden: int,
    strip_v_reset: bool = False,
    run_on: Sequence[Target],
    resume: Path,
    metrics: Mapping[str, Any] | None = None,
    opset: int = LEAST_OPSET,
    deployed_only: bool = False,
    progress: Progress,
) -> Written | None:
    """Converts, calibrates, measures and writes a network, and runs it on targets.

    Several processes share the images. The main one alone writes, and the others are done then: None.

    Args:
        model: What the user named.
        parts: Its images.
        choices: Of the user.
        out: The bundle's folder.
        golden: Inputs that are recorded, at most.
        strip_v_reset: Whether model.nir is for readers of nir 1.0.4.
        run_on: Targets.
        resume: The file for the state of the calibration.
        metrics: More for the manifest.
        opset: Of the ONNX files.
        deployed_only: As for `calibration.conversion.convert`.
        progress: Told as it goes on.
    """
    from calibration.conversion import convert
    from cos_export.device import resolve_device
    from cos_export.exporting import export_and_verify
    from cos_export.processes import is_main, local_device

    done = convert(model.source, parts, choices, resume=resume, deployed_only=deployed_only, progress=progress)
    if not is_main():
        return None
    shown = parts.evaluation.first(min(golden, len(parts.evaluation)))
    bundle, parity = export_and_verify(
        done.network,
        out,
        choices.steps,
        golden=shown.images,
        labels=shown.labels,
        calibration=done.calibration,
        metrics={"model": model.name, **_assumed(model), **done.metrics(parts, choices), **(metrics or {})},
        strip_v_reset=strip_v_reset,
        targets=run_on,
        device=str(local_device(resolve_device(choices.device))),
        opset=opset,
        progress=progress,
    )
    # Not before the bundle is in place: a kill until then would lose the calibration.
    for state in done.states:
        state.unlink(missing_ok=True)
    return Written(done, bundle, parity)


def _assumed(model: Model) -> dict[str, Any]:
    """What was assumed about a NIR file, for the manifest."""
    return {"assumed": list(model.notes)} if model.notes else {}


def show_written(written: Written, *, limits: bool) -> None:
    """The closing summary on the terminal.

    Args:
        written: What came of it.
        limits: Whether to show the ranges of integers.
    """
    from cos_export.network.readout import readout_notes
    from cos_export.terminal.conversion_notes import note_lines
    from cos_export.terminal.tables import limits_table, show_conversion

    manifest = written.bundle.manifest
    show_conversion(console(), written.bundle, written.conversion.ann_accuracy, written.conversion.rows, written.parity)
    for line in () if is_quiet() else note_lines(manifest["metrics"]):
        console().print(line, highlight=False, soft_wrap=True)
    show_notes(manifest["metrics"].get("assumed", []))
    show_notes(readout_notes(written.conversion.network))
    if limits and "quantisation" in manifest:
        console().print(limits_table(manifest["quantisation"]))
