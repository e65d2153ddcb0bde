"""The command that says which layer breaks, and why: analyze."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from cos_export.bounds import MAX_STEPS, MOST_SAMPLES
from cos_export.commands.network_options import NetworkOptions, OneRule
from cos_export.terminal.option_fields import taking
from cos_export.terminal.options import DeviceOption, Firing, JsonOption, ModelOrBundleArgument
from cos_export.terminal.output import finish, show_notes, show_path
from cos_export.terminal.printable import words
from cos_export.terminal.standard_output import console

__all__ = ["analyze"]


@dataclass(frozen=True, kw_only=True)
class AnalyzeOptions(OneRule, NetworkOptions):
    """What `analyze` takes."""

    model: ModelOrBundleArgument
    steps: Annotated[int | None, typer.Option(min=1, max=MAX_STEPS, help="T; a bundle knows its own.")] = None
    schedule: Annotated[
        Firing | None, typer.Option(help="When layers fire; by default as a bundle has it, else synchronous.")
    ] = None
    out: Annotated[Path | None, typer.Option(help="Where to draw a picture, as .png.")] = None
    samples: Annotated[int, typer.Option(min=1, max=MOST_SAMPLES, help="How many images to take at most.")] = 256
    device: DeviceOption = "auto"
    as_json: JsonOption = False


@taking(AnalyzeOptions)
def analyze(options: AnalyzeOptions) -> int:
    """Say of every layer what it gets wrong, split into clipping, levels and timing, and what that costs at the output.

    Example: cos-export analyze digits --data digits --steps 2 --out analysis.png
    """
    from calibration import Half
    from cos_export.analysis import layer_errors
    from cos_export.commands.opening import open_network
    from cos_export.device import resolve_device
    from cos_export.report.analysis_picture import save_analysis_picture
    from cos_export.report.picture import check_picture_destination
    from cos_export.terminal.analysis_table import analysis_lines, analysis_table
    from cos_export.terminal.progress_bars import progress_bars

    if options.out is not None:
        check_picture_destination(options.out)
    resolve_device(options.device)
    choices = (
        None if options.steps is None else options.choices(Half(), options.steps, options.thresholds, options.device)
    )
    with progress_bars() as progress:
        opened = open_network(options, choices, progress=progress)
        network = (
            opened.network if options.schedule is None else replace(opened.network, schedule=options.schedule.value)
        )
        images = opened.images.first(min(options.samples, len(opened.images)))
        errors = layer_errors(
            network, images, options.steps, calibration=opened.calibration, device=options.device, progress=progress
        )
    document = errors.to_dict()
    picture = None if options.out is None else save_analysis_picture(options.out, document)
    if not options.as_json:
        screen = console()
        screen.print(analysis_table(document, options.model))
        for line in analysis_lines(document):
            screen.print(words(line), highlight=False, soft_wrap=True)
        show_notes(opened.notes)
        if picture is not None:
            show_path(picture)
    shown = {"picture": None if picture is None else str(picture), "notes": list(opened.notes)}
    return finish({"model": options.model, "dataset": images.name, **shown, **document}, options.as_json, True)
