"""The command line."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from cos_export.errors import CosExportError, InputError
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
    SamplesOption,
    SeedOption,
    ShiftOption,
    StdOption,
    StepsOption,
    TargetsOption,
    ThresholdsOption,
    TuneOption,
    UpdatesOption,
    WeightsOption,
    names,
    numbers,
)

if TYPE_CHECKING:  # what is slow to import is imported by the command that needs it
    from collections.abc import Sequence

    from calibration.choices import Choices
    from cos_export.target import Target

app = typer.Typer(
    name="cos-export",
    help="From a trained PyTorch network to calibrated integrate-and-fire neurons, as NIR and ONNX, with proof.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""


def main() -> NoReturn:
    """Runs the command line: exits 0 if done, 1 if a check failed, 2 on wrong input, 3 if a target is missing."""
    # A polite kill unwinds like Ctrl-C, so that half-written files and worker processes are cleaned up.
    signal.signal(signal.SIGTERM, _terminate)
    as_json = "--json" in sys.argv
    try:
        code = app(standalone_mode=False) or 0
        if code == INTERRUPTED:
            code = _fail("Interrupted. Nothing was left half-written.", INTERRUPTED, as_json)
    except CosExportError as error:
        code = _fail(str(error), error.exit_code, as_json)
    except typer.TyperException as error:
        code = _fail(f"{error.format_message()} See cos-export --help.", 2, as_json)
    except OSError as error:
        code = _fail(str(error), 1, as_json)
    sys.exit(code)


@app.command("convert-and-export")
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
    from calibration.choices import Choices
    from targets.verification import resolve

    choices = Choices(
        method,
        steps,
        rho,
        samples,
        levels,
        max_pool.value,
        thresholds,
        per_channel=per_channel,
        device=device,
        options=_chosen(
            tune=tune and tuple(names(tune)),
            updates=updates,
            learning_rate=learning_rate,
            flip=flip or None,
            shift=shift,
            both_sides=both_sides or None,
            compiled=compiled or None,
            seed=seed,
        ),
        numerics=numerics,
        quantisation=tuple(names(quantisation or "")),
    )
    run_on = resolve(names(targets))
    return _convert(
        model, weights, classes, data, calibration_data, mean, std, choices, out, golden, run_on, limits, as_json
    )


@app.command()
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
    from calibration.choices import Choices
    from calibration.distributed import local_device
    from cos_export.device import resolve_device

    choices = Choices(
        method,
        steps,
        rho,
        samples,
        levels,
        max_pool.value,
        thresholds,
        per_channel=per_channel,
        device=str(local_device(resolve_device(device))),
        options=_chosen(
            tune=tune and tuple(names(tune)),
            updates=updates,
            learning_rate=learning_rate,
            flip=flip or None,
            shift=shift,
            both_sides=both_sides or None,
            compiled=compiled or None,
            seed=seed,
        ),
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
    from cos_export.model_source import load_model
    from cos_export.terminal.progress_bars import progress_bars
    from cos_export.terminal.tables import limits_table, show_conversion

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
        show_conversion(Console(), bundle, done.ann_accuracy, done.rows, parity)
        if limits and "quantisation" in bundle.manifest:
            Console().print(limits_table(bundle.manifest["quantisation"]))
    return _finish({"bundle": str(bundle.path), **bundle.manifest}, as_json, parity is None or parity.passed)


def _chosen(**options: object) -> dict[str, object]:
    """The options that the user gave."""
    return {name: value for name, value in options.items() if value is not None}


@app.command()
def check(
    model: ModelArgument,
    weights: WeightsOption = None,
    input_shape: Annotated[str | None, typer.Option(help="Of one image, as 3,32,32; zoo networks know theirs.")] = None,
    levels: LevelsOption = None,
    classes: ClassesOption = None,
    max_pool: MaxPoolOption = MaxPooling.refuse,
    as_json: JsonOption = False,
) -> int:
    """List every operation of a network, what it becomes, and all that stands in the way, each with its fix.

    Example: cos-export check my_package.models:make_network --input-shape 3,32,32
    """
    import numpy as np

    from cos_export import zoo
    from cos_export.capturing import check_model
    from cos_export.model_source import build_model
    from cos_export.terminal.check_table import check_table

    module = build_model(model, levels=levels, classes=classes)
    if weights is not None:
        zoo.load_weights(module, weights)
    shape = numbers("--input-shape", input_shape)
    if shape is None and model not in zoo.names():
        raise InputError("Say the shape of one image, as --input-shape 3,32,32.")
    size = [int(n) for n in shape] if shape is not None else list(zoo.entry(model).input_shape)
    example = np.zeros((2, *size), np.float32)
    result = check_model(module.eval(), example, levels=levels, max_pool=max_pool.value, assume_thresholds=True)
    if not as_json:
        Console().print(check_table(result, model))
    return _finish(result.to_dict(), as_json, result.passed)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    targets: TargetsOption = "onnxruntime",
    as_json: JsonOption = False,
) -> int:
    """Run a bundle's golden inputs on targets and compare every spike, end to end and locally.

    Example: cos-export verify out/digits --targets onnxruntime,lava
    """
    from cos_export.terminal.progress_bars import progress_bars
    from cos_export.terminal.tables import show_parity
    from targets import verification

    with progress_bars() as progress:
        result = verification.verify(bundle, names(targets), progress=progress)
    if not as_json:
        show_parity(Console(), result)
    return _finish(result.to_dict(), as_json, result.passed)


@app.command()
def report(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    out: Annotated[
        Path | None, typer.Option(help="The page to write; by default beside the bundle, as BUNDLE.report.html.")
    ] = None,
    targets: Annotated[
        str | None, typer.Option(help="Verify on these first, with commas; by default the page tells of the export.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Write the report of a bundle anew: accuracies, parity, thresholds, initial potentials and firing.

    Nothing in the bundle is altered. With --json all that the page shows is printed as numbers, too.

    Example: cos-export report out/digits --targets onnxruntime,lava --out digits.html
    """
    from cos_export.bundle import load
    from cos_export.report import report_destination, report_document, save_report
    from cos_export.terminal.progress_bars import progress_bars
    from cos_export.terminal.tables import show_parity
    from targets import verification

    opened = load(bundle)
    page = report_destination(opened, out)
    parity = None
    if targets is not None:
        with progress_bars() as progress:
            parity = verification.verify(opened, names(targets), progress=progress)
    document = report_document(opened, parity)
    save_report(page, document)
    if not as_json:
        console = Console()
        if parity is not None:
            show_parity(console, parity)
        console.print(f"  {page}", highlight=False, soft_wrap=True)
    return _finish({"bundle": str(bundle), "report": str(page), **document}, as_json, parity is None or parity.passed)


@app.command("run")
def run_bundle(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    data: DataOption,
    target: Annotated[str, typer.Option(help="pytorch, onnxruntime or lava.")] = "onnxruntime",
    samples: SamplesOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> int:
    """Classify images with a bundle on one target and report the accuracy after every step.

    Example: cos-export run out/digits --data digits --target lava --samples 100
    """
    from calibration import per_sample_method
    from cos_export.accuracy import row_of
    from cos_export.bundle import load
    from cos_export.datasets import load_dataset
    from cos_export.simulation import check_images
    from cos_export.terminal.progress_bars import progress_bars
    from cos_export.terminal.tables import accuracy_table
    from targets.running import classify
    from targets.verification import resolve

    opened, [chosen] = load(bundle), resolve([target])
    read = partial(load_dataset, mean=numbers("--mean", mean), std=numbers("--std", std))
    dataset = read(data, "test").first(samples)
    images = check_images(opened.network, dataset.images)
    network = opened.network
    method = per_sample_method(network.method, network.rho) if network.rho else None
    with progress_bars() as progress:
        trace = classify(chosen, opened, images, calibration=method, device=device, progress=progress)
    row = row_of(opened.network, trace, dataset, range(1, opened.steps + 1))
    version = chosen.available().version
    if not as_json:
        Console().print(
            accuracy_table(None, [row], f"Accuracy (%) of {version} on {dataset.name}, {len(dataset)} images")
        )
    document = {"target": chosen.name, "version": version, "dataset": dataset.name, "samples": len(dataset)}
    return _finish(document | row.to_dict(), as_json, True)


@app.command()
def offsets(
    model: Annotated[str, typer.Argument(help="As for check, or the folder of a bundle.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Where to draw the picture, as .png.")],
    steps: Annotated[int | None, typer.Option(min=1, help="T of the squared error; a bundle knows its own.")] = None,
    rho: Annotated[int, typer.Option(min=1, help="Steps over which offset spikes are counted.")] = 4,
    weights: WeightsOption = None,
    samples: SamplesOption = None,
    levels: LevelsOption = None,
    classes: ClassesOption = None,
    max_pool: MaxPoolOption = MaxPooling.refuse,
    thresholds: ThresholdsOption = "mmse",
    per_channel: PerChannelOption = False,
    mean: MeanOption = None,
    std: StdOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> int:
    """Count the spikes too few and too many in every layer, before and after COS x1, x2 and x4.

    Example: cos-export offsets digits --data digits --steps 4 --rho 4 --out offsets.png
    """
    from calibration.choices import Choices
    from calibration.conversion import data_parts, prepare
    from calibration.offset_spikes import offset_spikes
    from cos_export.bundle import load
    from cos_export.datasets import load_dataset
    from cos_export.device import resolve_device
    from cos_export.model_source import load_model
    from cos_export.report.offset_picture import check_picture_destination, save_offset_picture
    from cos_export.terminal.offsets_table import offsets_table
    from cos_export.terminal.progress_bars import progress_bars

    check_picture_destination(out)
    resolve_device(device)
    averages, deviations = numbers("--mean", mean), numbers("--std", std)
    with progress_bars() as progress:
        if Path(model).is_dir():
            network, images = load(model).network, load_dataset(data, "test", mean=averages, std=deviations)
        elif steps is None:
            raise InputError("Say how many steps the mean squared error is taken over, as --steps 4.")
        else:
            module = load_model(model, weights, levels=levels, classes=classes).module
            choices = Choices(
                "cos", steps, rho, None, levels, max_pool.value, thresholds, per_channel=per_channel, device=device
            )
            parts = data_parts(module, data, choices, mean=averages, std=deviations)
            network, images = prepare(module, parts, choices, progress=progress).captured, parts.evaluation
        found = offset_spikes(network, images.first(samples).images, steps, rho, device=device, progress=progress)
    document = found.to_dict()
    picture = save_offset_picture(out, document)
    if not as_json:
        console = Console()
        console.print(offsets_table(document, model))
        console.print(f"  {picture}", highlight=False, soft_wrap=True)
    return _finish({"model": model, "dataset": images.name, "picture": str(picture), **document}, as_json, True)


@app.command()
def train(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="Where to write the weights, as .safetensors; a .png is drawn beside it.")],
    data: Annotated[str | None, typer.Option(help="What to train on; by default what the zoo network is for.")] = None,
    test_data: Annotated[str | None, typer.Option(help="To measure on; of a named data set its test part.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights to start from.")] = None,
    swap_activations: Annotated[
        bool, typer.Option("--swap-activations", help="Put a QCFS in the place of every ReLU first.")
    ] = False,
    levels: LevelsOption = None,
    classes: ClassesOption = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="By default the zoo network's recipe.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest that is reached.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Samples per step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation.")] = None,
    schedule: Annotated[str | None, typer.Option(help="one-cycle or cosine.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, or mixed (bfloat16 where the device has it).")] = None,
    mean: MeanOption = None,
    std: StdOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> int:
    """Train a network of QCFS activations and write its weights with the recipe in the header.

    Killed at any moment, the same command goes on from the last whole epoch, to the same weights.

    Example: cos-export train digits --out digits.safetensors
    """
    from cos_export.terminal.progress_bars import progress_bars
    from cos_export.terminal.tables import training_table
    from cos_export.training_job import TrainingJob, run_training

    job = TrainingJob(
        model,
        out,
        data,
        test_data,
        weights,
        swap_activations,
        levels,
        classes,
        _chosen(
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            seed=seed,
            schedule=schedule,
            precision=precision,
        ),
        numbers("--mean", mean),
        numbers("--std", std),
        device,
    )
    with progress_bars() as progress:
        result, curve = run_training(job, progress=progress)
    if not as_json:
        console = Console()
        console.print(training_table(result))
        for path in (out, curve):
            console.print(f"  {path}", highlight=False, soft_wrap=True)
    return _finish({"weights": str(out), "curve": str(curve), **asdict(result)}, as_json, True)


@app.command("targets")
def list_targets(
    install: Annotated[str | None, typer.Option(help="Make the environment of a target: lava.")] = None,
    as_json: JsonOption = False,
) -> int:
    """List the targets, whether each can run here, and why not.

    Example: cos-export targets --install lava
    """
    import targets as registry
    from cos_export.terminal.progress_bars import progress_bars
    from cos_export.terminal.tables import target_table

    if install is not None:
        with progress_bars() as progress:
            registry.install(install, progress=progress)
    states = {name: registry.get(name).available() for name in registry.names()}
    if not as_json:
        Console().print(target_table(states))
    return _finish({name: asdict(state) for name, state in states.items()}, as_json, True)


def _finish(document: dict[str, Any], as_json: bool, passed: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    return 0 if passed else 1


def _fail(message: str, code: int, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps({"error": message, "exit_code": code}, indent=2) + "\n")
    else:
        Console(stderr=True).print(f"[bold red]error:[/bold red] {escape(message)}", highlight=False, soft_wrap=True)
    return code


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
