"""Commands that make a bundle of a network: convert-and-export, calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cos_export.terminal.options import (
    BothSidesOption,
    CalibrationDataOption,
    CalibrationSamplesOption,
    ClassesOption,
    CompileOption,
    DataOption,
    DeviceOption,
    FlipOption,
    GoldenOption,
    JsonOption,
    LearningRateOption,
    LevelsOption,
    LimitsOption,
    MaxPooling,
    MaxPoolOption,
    MeanOption,
    MethodOption,
    ModelArgument,
    NumericsOption,
    OutOption,
    PerChannelOption,
    QuantisationOption,
    RhoOption,
    SeedOption,
    ShiftOption,
    StartFromOption,
    StdOption,
    StepsOption,
    TargetsOption,
    ThresholdsOption,
    TuneOption,
    UpdatesOption,
    WeightsOption,
    given,
    names,
    numbers,
)
from cos_export.terminal.output import finish
from cos_export.terminal.standard_output import console

if TYPE_CHECKING:  # what is slow to import is imported by the command that needs it
    from collections.abc import Sequence

    from calibration.choices import Choices
    from cos_export.bundle.target import Target

__all__ = ["calibrate", "convert_and_export"]


def convert_and_export(
    model: ModelArgument,
    data: DataOption,
    steps: StepsOption,
    out: OutOption,
    weights: WeightsOption = None,
    method: MethodOption = "mean-matching",
    rho: RhoOption = 4,
    calibration_data: CalibrationDataOption = None,
    samples: CalibrationSamplesOption = None,
    tune: TuneOption = None,
    updates: UpdatesOption = None,
    learning_rate: LearningRateOption = None,
    flip: FlipOption = False,
    shift: ShiftOption = None,
    both_sides: BothSidesOption = False,
    start_from: StartFromOption = None,
    compiled: CompileOption = False,
    seed: SeedOption = None,
    golden: GoldenOption = 64,
    targets: TargetsOption = "onnxruntime",
    levels: LevelsOption = None,
    classes: ClassesOption = None,
    max_pool: MaxPoolOption = MaxPooling.refuse,
    thresholds: ThresholdsOption = "mmse",
    per_channel: PerChannelOption = False,
    numerics: NumericsOption = "float32",
    quantisation: QuantisationOption = None,
    limits: LimitsOption = False,
    mean: MeanOption = None,
    std: StdOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> int:
    """Convert a network, calibrate it, write NIR and ONNX, run the targets and compare every spike.

    Example: cos-export convert-and-export digits --data digits --steps 4 --targets onnxruntime,lava --out out/digits
    """
    from calibration import method_named
    from calibration.choices import Choices
    from cos_export.bundle import network_of
    from targets.verification import resolve

    choices = Choices(
        method_named(
            method,
            given(
                **({"tau" if method == "srp" else "rho": rho} if method in ("cos", "srp") else {}),
                tune=tune and tuple(names(tune)),
                updates=updates,
                learning_rate=learning_rate,
                flip=flip or None,
                shift=shift,
                both_sides=both_sides or None,
                start_from=start_from and network_of(start_from),
                compiled=compiled or None,
                seed=seed,
            ),
        ),
        steps,
        samples,
        levels,
        max_pool.value,
        thresholds,
        per_channel=per_channel,
        device=device,
        numerics=numerics,
        quantisation=tuple(names(quantisation or "")),
    )
    run_on = resolve(names(targets))
    return _convert(
        model, weights, classes, data, calibration_data, mean, std, choices, out, golden, run_on, limits, as_json
    )


def calibrate(
    model: ModelArgument,
    data: DataOption,
    steps: StepsOption,
    out: OutOption,
    weights: WeightsOption = None,
    method: MethodOption = "static",
    rho: RhoOption = 4,
    calibration_data: CalibrationDataOption = None,
    samples: CalibrationSamplesOption = None,
    tune: TuneOption = None,
    updates: UpdatesOption = None,
    learning_rate: LearningRateOption = None,
    flip: FlipOption = False,
    shift: ShiftOption = None,
    both_sides: BothSidesOption = False,
    start_from: StartFromOption = None,
    compiled: CompileOption = False,
    seed: SeedOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images computed at once: it bounds the memory.")] = 64,
    golden: GoldenOption = 64,
    levels: LevelsOption = None,
    classes: ClassesOption = None,
    max_pool: MaxPoolOption = MaxPooling.refuse,
    thresholds: ThresholdsOption = "mmse",
    per_channel: PerChannelOption = False,
    numerics: NumericsOption = "float32",
    quantisation: QuantisationOption = None,
    limits: LimitsOption = False,
    mean: MeanOption = None,
    std: StdOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> int:
    """Convert a network and calibrate it, on one or many processes, and write the bundle without running targets.

    Killed at any moment, the same command goes on from the last state that it kept, to the same result.

    Example: cos-export calibrate digits --data digits --steps 2 --method static --out out/digits-2

    Many GPUs: torchrun --nproc-per-node 4 -m cos_export calibrate resnet20 ...
    """
    from calibration import method_named
    from calibration.choices import Choices
    from calibration.distributed import local_device
    from cos_export.bundle import network_of
    from cos_export.device import resolve_device

    choices = Choices(
        method_named(
            method,
            given(
                **({"tau" if method == "srp" else "rho": rho} if method in ("cos", "srp") else {}),
                tune=tune and tuple(names(tune)),
                updates=updates,
                learning_rate=learning_rate,
                flip=flip or None,
                shift=shift,
                both_sides=both_sides or None,
                start_from=start_from and network_of(start_from),
                compiled=compiled or None,
                seed=seed,
            ),
        ),
        steps,
        samples,
        levels,
        max_pool.value,
        thresholds,
        per_channel=per_channel,
        device=str(local_device(resolve_device(device))),
        numerics=numerics,
        quantisation=tuple(names(quantisation or "")),
        batch_size=batch_size,
    )
    return _convert(
        model, weights, classes, data, calibration_data, mean, std, choices, out, golden, (), limits, as_json
    )


def _convert(
    model: str,
    weights: Path | None,
    classes: int | None,
    data: str,
    calibration_data: str | None,
    mean: str | None,
    std: str | None,
    choices: Choices,
    out: Path,
    golden: int,
    run_on: Sequence[Target],
    limits: bool,
    as_json: bool,
) -> int:
    from calibration.choices import check_method
    from calibration.conversion import convert, data_parts, prepare
    from calibration.distributed import is_main
    from cos_export.bundle import check_destination
    from cos_export.device import resolve_device
    from cos_export.exporting import export_and_verify
    from cos_export.terminal.progress_bars import progress_bars
    from cos_export.terminal.tables import limits_table, show_conversion
    from cos_export.zoo.model_source import load_model

    # Everything that can be refused is refused before the first second of work.
    check_destination(out)
    resolve_device(choices.device)
    check_method(choices)
    loaded = load_model(model, weights, levels=choices.levels, classes=classes)
    normalisation = {"mean": numbers("--mean", mean), "std": numbers("--std", std)}
    parts = data_parts(loaded.module, data, choices, calibration=calibration_data, **normalisation)
    # Beside the bundle and not in it, for a bundle is there whole or not at all.
    resume = out.with_name(f"{out.name}.resume.safetensors")
    if not is_main():
        prepare(loaded.module, parts, choices, resume=resume)
        return 0
    with progress_bars() as progress:
        done = convert(loaded.module, parts, choices, resume=resume, progress=progress)
        shown = parts.evaluation.first(min(golden, len(parts.evaluation)))
        bundle, parity = export_and_verify(
            done.network,
            out,
            choices.steps,
            golden=shown.images,
            labels=shown.labels,
            calibration=done.calibration,
            metrics={"model": loaded.name, **done.metrics(parts, choices)},
            targets=run_on,
            device=choices.device,
            progress=progress,
        )
    if not as_json:
        show_conversion(console(), bundle, done.ann_accuracy, done.rows, parity)
        if limits and "quantisation" in bundle.manifest:
            console().print(limits_table(bundle.manifest["quantisation"]))
    return finish({"bundle": str(bundle.path), **bundle.manifest}, as_json, parity is None or parity.passed)
