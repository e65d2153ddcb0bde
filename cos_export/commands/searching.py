"""The command that looks for the cheapest deployment: search."""

from __future__ import annotations

import math
from dataclasses import replace
from enum import StrEnum
from typing import Annotated

import typer

from cos_export.bounds import LEAST_OPSET, MOST_SAMPLES
from cos_export.commands.writing import convert_and_write, resume_file, show_written
from cos_export.errors import InputError
from cos_export.numerics import FLOAT32
from cos_export.terminal.options import (
    CalibrationDataOption,
    CalibrationSamplesOption,
    ClassesOption,
    ConditionOption,
    DataOption,
    DeadlineOption,
    DenseKernelsOption,
    DeviceOption,
    DtOption,
    GoldenOption,
    JsonOption,
    LevelsOption,
    LimitsOption,
    MaxPooling,
    MaxPoolOption,
    MeanOption,
    ModelArgument,
    NirCompatOption,
    NumericsOption,
    OpsetOption,
    OutOption,
    PerChannelOption,
    QuantisationOption,
    ResetOption,
    SizeOption,
    StdOption,
    TargetsOption,
    UnitThresholdsOption,
    WeightsOption,
    conventions_of,
    height_and_width,
    names,
    numbers,
    step_ranges,
)
from cos_export.terminal.output import finish
from cos_export.terminal.standard_output import console

__all__ = ["search"]


class Minimise(StrEnum):
    """What is minimised."""

    latency = "latency"
    operations = "operations"
    steps = "steps"


def search(
    model: ModelArgument,
    data: DataOption,
    out: OutOption,
    max_drop: Annotated[float, typer.Option(min=0.0, help="Points of accuracy that may be lost.")] = 0.5,
    minimise: Annotated[
        Minimise, typer.Option(help="Steps until the readout, operations per image, or T_total = rho + T.")
    ] = Minimise.latency,
    steps: Annotated[str, typer.Option(help="T: whole numbers and ranges with commas, as 1..4,8.")] = "1..8",
    methods: Annotated[str | None, typer.Option(help="With commas; by default cheap ones.")] = None,
    schedules: Annotated[str, typer.Option(help="With commas.")] = "synchronous,layerwise",
    rho: Annotated[str, typer.Option(help="Extra steps of per-sample methods, as --steps.")] = "1,2,4",
    held_out: Annotated[int, typer.Option(min=1, max=MOST_SAMPLES, help="Images to compare on at most.")] = 2000,
    samples: CalibrationSamplesOption = None,
    calibration_data: CalibrationDataOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    size: SizeOption = None,
    weights: WeightsOption = None,
    classes: ClassesOption = None,
    levels: LevelsOption = None,
    max_pool: MaxPoolOption = MaxPooling.exact,
    thresholds: Annotated[
        str | None, typer.Option(help="Of plain ReLUs, with commas; by default mmse and percentile.")
    ] = None,
    per_channel: PerChannelOption = False,
    reset: ResetOption = None,
    condition: ConditionOption = None,
    dt: DtOption = None,
    numerics: NumericsOption = FLOAT32,
    quantisation: QuantisationOption = None,
    limits: LimitsOption = False,
    nir_compat: NirCompatOption = None,
    unit_thresholds: UnitThresholdsOption = False,
    dense_kernels: DenseKernelsOption = False,
    targets: TargetsOption = "onnxruntime",
    deadline: DeadlineOption = None,
    golden: GoldenOption = 64,
    opset: OpsetOption = LEAST_OPSET,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> int:
    """Measure methods, thresholds, steps and schedules on images held out; write the cheapest that keeps the accuracy.

    Killed at any moment, the same command goes on after the last that it has measured. Exit code 1 if nothing keeps it.

    Example: cos-export search digits --data digits --max-drop 0.5 --minimise operations --out out/cheapest
    """
    from calibration.choices import Auto, Choices, check_method
    from calibration.data_parts import data_parts
    from calibration.methods.unchanged import Unchanged
    from calibration.search import DEFAULT_METHODS, DEFAULT_THRESHOLDS, deployments, outcome
    from calibration.search import search as measured_by_search
    from calibration.sources import choices_for
    from cos_export.atomic_file import check_derived_destination
    from cos_export.bundle import check_destination
    from cos_export.device import resolve_device
    from cos_export.network.schedule import check_schedule
    from cos_export.processes import is_main
    from cos_export.progress import one_piece
    from cos_export.report.search_picture import save_search_picture
    from cos_export.storage import resolved
    from cos_export.terminal.progress_bars import progress_bars
    from cos_export.terminal.search_table import deployed_line, search_lines, search_table
    from cos_export.zoo.model_source import is_nir, load_model
    from targets.verification import resolve

    # Everything that can be refused is refused before the first second of work.
    if not math.isfinite(max_drop):
        raise InputError(f"--max-drop is a number of points of accuracy, and is {max_drop}.")
    run_on = resolve(names(targets), deadline=deadline)
    destination = check_destination(out)
    state, picture = (resolved(destination.with_name(f"{destination.name}.search.{end}")) for end in ("json", "png"))
    check_derived_destination(picture, b"\x89PNG")
    resolve_device(device)
    # No method is chosen yet, and all of them may need images to calibrate on.
    choices = Choices(
        Auto(),
        1,
        samples,
        levels,
        max_pool.value,
        DEFAULT_THRESHOLDS[0] if thresholds is None else thresholds,
        per_channel=per_channel,
        device=device,
        numerics=numerics,
        quantisation=tuple(names(quantisation or "")),
        unit_thresholds=unit_thresholds,
        dense_kernels=dense_kernels,
    )
    check_method(choices)
    conventions = conventions_of(reset, condition, dt)
    loaded = load_model(model, weights, levels=levels, classes=classes, conventions=conventions)
    choices = replace(choices_for(loaded.source, choices), method=Auto(), thresholds=DEFAULT_THRESHOLDS[0])
    # What a file says of its potentials is a deployment as well; a module says nothing.
    cheap = (*([Unchanged.name] if is_nir(model) else []), *DEFAULT_METHODS)
    candidates, refused = deployments(
        names(methods) if methods is not None else cheap,
        step_ranges("--steps", steps),
        [check_schedule(schedule) for schedule in names(schedules)],
        step_ranges("--rho", rho),
        numerics,
        DEFAULT_THRESHOLDS if thresholds is None else names(thresholds),
    )
    for one in candidates:
        choices_for(loaded.source, replace(choices, method=one.method))
    with progress_bars() as progress:
        with one_piece(progress, "reading the data"):
            parts = data_parts(
                loaded.source,
                data,
                choices,
                calibration=calibration_data,
                held_out=held_out,
                mean=numbers("--mean", mean),
                std=numbers("--std", std),
                size=height_and_width(size),
            )
        measured, ann = measured_by_search(loaded.source, parts, choices, candidates, state=state, progress=progress)
    samples_held_out = 0 if parts.held_out is None else len(parts.held_out)
    result = outcome(measured, minimise.value, max_drop, ann, samples_held_out, refused)
    document = result.to_dict()
    shown = save_search_picture(picture, document) if result.measured and is_main() else None
    if not as_json:
        console().print(search_table(document))
        for line in search_lines(document):
            console().print(line, highlight=False, soft_wrap=True, markup=False)
        for path in (shown, state):
            console().print(f"  {path}", highlight=False, soft_wrap=True)
    files = {"picture": None if shown is None else str(shown), "state": str(state)}
    if result.winner is None:
        return finish({"bundle": None, "search": document, **files}, as_json, False)
    winner = result.winner.deployment
    rule = winner.thresholds or choices.thresholds
    chosen = replace(choices, method=winner.method, steps=winner.steps, schedule=winner.schedule, thresholds=rule)
    told = {key: value for key, value in document.items() if key not in ("measured", "front", "failed", "refused")}
    with progress_bars() as progress:
        written = convert_and_write(
            loaded,
            parts,
            chosen,
            out,
            golden=golden,
            strip_v_reset=nir_compat is not None,
            run_on=run_on,
            resume=resume_file(destination),
            metrics={"search": told},
            opset=opset,
            progress=progress,
        )
    if written is None:
        return 0
    if not as_json:
        show_written(written, limits=limits)
        line = deployed_line(written.bundle.manifest)
        console().print(line, highlight=False, soft_wrap=True, markup=False)
    return finish({**written.document(), "search": document, **files}, as_json, written.passed, written.exit_code)
