"""The command that says which layer breaks, and why: analyze."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cos_export.bounds import MAX_STEPS, MOST_SAMPLES
from cos_export.terminal.options import (
    ClassesOption,
    ConditionOption,
    DataOption,
    DeviceOption,
    DtOption,
    Firing,
    JsonOption,
    LevelsOption,
    MaxPooling,
    MaxPoolOption,
    MeanOption,
    PerChannelOption,
    ResetOption,
    SizeOption,
    StdOption,
    ThresholdsOption,
    WeightsOption,
    conventions_of,
    height_and_width,
    numbers,
)
from cos_export.terminal.output import finish, show_notes, show_path
from cos_export.terminal.printable import words
from cos_export.terminal.standard_output import console

__all__ = ["analyze"]


def analyze(
    model: Annotated[str, typer.Argument(help="As for check, or the folder of a bundle.")],
    data: DataOption,
    steps: Annotated[int | None, typer.Option(min=1, max=MAX_STEPS, help="T; a bundle knows its own.")] = None,
    schedule: Annotated[
        Firing | None, typer.Option(help="When layers fire; by default as a bundle has it, else synchronous.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to draw a picture, as .png.")] = None,
    samples: Annotated[int, typer.Option(min=1, max=MOST_SAMPLES, help="How many images to take at most.")] = 256,
    weights: WeightsOption = None,
    levels: LevelsOption = None,
    classes: ClassesOption = None,
    max_pool: MaxPoolOption = MaxPooling.exact,
    thresholds: ThresholdsOption = "mmse",
    per_channel: PerChannelOption = False,
    reset: ResetOption = None,
    condition: ConditionOption = None,
    dt: DtOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    size: SizeOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> int:
    """Say of every layer what it gets wrong, split into clipping, levels and timing, and what that costs at the output.

    Example: cos-export analyze digits --data digits --steps 2 --out analysis.png
    """
    from calibration import Half
    from calibration.choices import Choices
    from cos_export.analysis import layer_errors
    from cos_export.commands.opening import open_network
    from cos_export.device import resolve_device
    from cos_export.report.analysis_picture import save_analysis_picture
    from cos_export.report.picture import check_picture_destination
    from cos_export.terminal.analysis_table import analysis_lines, analysis_table
    from cos_export.terminal.progress_bars import progress_bars

    if out is not None:
        check_picture_destination(out)
    resolve_device(device)
    choices = None
    if steps is not None:
        choices = Choices(
            Half(), steps, None, levels, max_pool.value, thresholds, per_channel=per_channel, device=device
        )
    channels = {"mean": numbers("--mean", mean), "std": numbers("--std", std)}
    with progress_bars() as progress:
        opened = open_network(
            model,
            data,
            choices,
            weights=weights,
            classes=classes,
            conventions=conventions_of(reset, condition, dt),
            **channels,
            size=height_and_width(size),
            progress=progress,
        )
        network = opened.network if schedule is None else replace(opened.network, schedule=schedule.value)
        images = opened.images.first(min(samples, len(opened.images)))
        errors = layer_errors(network, images, steps, calibration=opened.calibration, device=device, progress=progress)
    document = errors.to_dict()
    picture = None if out is None else save_analysis_picture(out, document)
    if not as_json:
        screen = console()
        screen.print(analysis_table(document, model))
        for line in analysis_lines(document):
            screen.print(words(line), highlight=False, soft_wrap=True)
        show_notes(opened.notes)
        if picture is not None:
            show_path(picture)
    shown = {"picture": None if picture is None else str(picture), "notes": list(opened.notes)}
    return finish({"model": model, "dataset": images.name, **shown, **document}, as_json, True)
