"""Commands that make a bundle of a network: convert-and-export, calibrate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cos_export.bounds import MOST_BATCH
from cos_export.commands.method_options import calibrating
from cos_export.commands.network_options import BundleOptions, OneRule
from cos_export.commands.writing import convert_and_write, resume_file, show_written
from cos_export.terminal.option_fields import in_panel
from cos_export.terminal.options import DeadlineOption, Firing, ScheduleOption, StepsOption, TargetsOption, names
from cos_export.terminal.output import finish

if TYPE_CHECKING:  # what is slow to import is imported by the command that needs it
    from collections.abc import Sequence

    from calibration import Method
    from calibration.choices import Choices
    from cos_export.bundle.target import Target

__all__ = ["CalibrateOptions", "ConversionOptions", "ExportOptions", "calibrate", "convert_and_export"]

CALIBRATION = "Calibration"
"""A panel of --help, beside those of `cos_export.commands.network_options`."""


@dataclass(frozen=True, kw_only=True)
class ConversionOptions(OneRule, BundleOptions):
    """What `convert-and-export` and `calibrate` both take, beside the calibration method and its options."""

    steps: StepsOption = in_panel(CALIBRATION)
    schedule: ScheduleOption = in_panel(CALIBRATION, Firing.synchronous)

    def conversion_choices(self, method: Method, device: str, batch_size: int = 64) -> Choices:
        """What the conversion is to know of them."""
        return self.bundle_choices(
            method, self.steps, self.thresholds, device, batch_size=batch_size, schedule=self.schedule.value
        )


@dataclass(frozen=True, kw_only=True)
class ExportOptions(ConversionOptions):
    """What `convert-and-export` takes."""

    targets: TargetsOption = "onnxruntime"
    deadline: DeadlineOption = None


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions(ConversionOptions):
    """What `calibrate` takes."""

    batch_size: Annotated[
        int, typer.Option(min=1, max=MOST_BATCH, help="Images computed at once: it bounds the memory.")
    ] = in_panel(CALIBRATION, 64)


@calibrating(ExportOptions)
def convert_and_export(options: ExportOptions, method: Method) -> int:
    """Convert a network, calibrate it, write NIR and ONNX, run the targets and compare every spike.

    Example: cos-export convert-and-export digits --data digits --steps 4 --targets onnxruntime,lava --out out/digits
    """
    from targets.verification import resolve

    run_on = resolve(names(options.targets), deadline=options.deadline)
    return _convert(options, options.conversion_choices(method, options.device), run_on)


@calibrating(CalibrateOptions)
def calibrate(options: CalibrateOptions, method: Method) -> int:
    """Convert a network and calibrate it, on one or many processes, and write the bundle without running targets.

    Killed at any moment, the same command goes on from the last state that it kept, to the same result.

    Example: cos-export calibrate digits --data digits --steps 2 --method static --out out/digits-2

    Many GPUs: torchrun --nproc-per-node 4 -m cos_export calibrate resnet20 ...
    """
    return _convert(options, options.conversion_choices(method, options.device, options.batch_size), ())


def _convert(options: ConversionOptions, choices: Choices, run_on: Sequence[Target]) -> int:
    from calibration.choices import check_method
    from calibration.sources import choices_for
    from cos_export.bundle import check_destination
    from cos_export.device import resolve_device
    from cos_export.progress import one_piece
    from cos_export.terminal.progress_bars import progress_bars

    # Everything that can be refused is refused before the first second of work.
    resume = resume_file(check_destination(options.out))
    resolve_device(choices.device)
    check_method(choices)
    with progress_bars() as progress:
        with one_piece(progress, "reading the network"):
            loaded = options.loaded()
        choices = choices_for(loaded.source, choices)
        check_method(choices)
        parts = options.parts(loaded.source, choices, progress=progress)
        written = convert_and_write(
            loaded,
            parts,
            choices,
            options.out,
            golden=options.golden,
            strip_v_reset=options.nir_compat is not None,
            run_on=run_on,
            resume=resume,
            opset=options.opset,
            progress=progress,
        )
    if written is None:
        return 0
    if not options.as_json:
        show_written(written, limits=options.limits)
    return finish(written.document(), options.as_json, written.passed, written.exit_code)
