"""Commands about a network: check, train, offsets."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from cos_export.bounds import (
    LARGEST_SEED,
    MAX_STEPS,
    MOST_BATCH,
    MOST_EXTRA_STEPS,
    MOST_PIXELS,
    MOST_ROUNDS,
    MOST_SHIFT,
)
from cos_export.commands.network_options import NetworkOptions, OneRule
from cos_export.errors import InputError
from cos_export.terminal.option_fields import taking
from cos_export.terminal.options import (
    ClassesOption,
    ConditionOption,
    DeviceOption,
    DtOption,
    JsonOption,
    LevelsOption,
    MaxPooling,
    MaxPoolOption,
    MeanOption,
    ModelArgument,
    ModelOrBundleArgument,
    ResetOption,
    SamplesOption,
    SizeOption,
    StdOption,
    WeightsOption,
    conventions_of,
    given,
    height_and_width,
    numbers,
    whole_numbers,
)
from cos_export.terminal.output import finish, show_notes, show_path
from cos_export.terminal.standard_output import console

__all__ = ["check", "offsets", "train"]


def check(
    model: ModelArgument,
    weights: WeightsOption = None,
    input_shape: Annotated[str | None, typer.Option(help="Of one image, as 3,32,32; zoo networks know theirs.")] = None,
    levels: LevelsOption = None,
    classes: ClassesOption = None,
    max_pool: MaxPoolOption = MaxPooling.exact,
    reset: ResetOption = None,
    condition: ConditionOption = None,
    dt: DtOption = None,
    as_json: JsonOption = False,
) -> int:
    """List every operation of a network, what it becomes, and all that stands in the way, each with its fix.

    Example: cos-export check my_package.models:make_network --input-shape 3,32,32
    """
    import numpy as np

    from cos_export import zoo
    from cos_export.capturing import check_model
    from cos_export.nir_file.checking import check_nir
    from cos_export.progress import one_piece
    from cos_export.terminal.check_table import check_table
    from cos_export.terminal.progress_bars import progress_bars
    from cos_export.zoo.model_source import build_model, check_conventions, check_options_of_nir, is_nir

    conventions = conventions_of(reset, condition, dt)
    if is_nir(model):
        check_options_of_nir(model, weights=weights, input_shape=input_shape, levels=levels, classes=classes)
        read = check_nir(model, conventions)
        if not as_json:
            console().print(check_table(read, model))
        return finish(read.to_dict(), as_json, read.passed)
    check_conventions(model, conventions)
    module = build_model(model, levels=levels, classes=classes)
    if weights is not None:
        zoo.load_weights(module, weights)
    shape = whole_numbers("--input-shape", input_shape)
    if shape is None and model not in zoo.names():
        raise InputError("Say the shape of one image, as --input-shape 3,32,32.")
    size = shape if shape is not None else list(zoo.entry(model).input_shape)
    if math.prod(size) > MOST_PIXELS:
        raise InputError(f"--input-shape {input_shape} has more than {MOST_PIXELS:,} numbers in one image.")
    example = np.zeros((2, *size), np.float32)
    with progress_bars() as progress, one_piece(progress, "checking the network"):
        result = check_model(module.eval(), example, levels=levels, max_pool=max_pool.value, assume_thresholds=True)
    if not as_json:
        console().print(check_table(result, model))
    code = finish(result.to_dict(), as_json, result.passed)
    # Nothing was checked where the network itself fails: that is wrong input, and not a check that failed.
    return code if result.ran else 2


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
    epochs: Annotated[
        int | None, typer.Option(min=1, max=MOST_ROUNDS, help="By default the zoo network's recipe.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest that is reached.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, max=MOST_BATCH, help="Samples per step.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=LARGEST_SEED, help="Of weights, order and augmentation.")
    ] = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Mirror half of the training images left to right.")
    ] = None,
    shift: Annotated[
        int | None, typer.Option(min=0, max=MOST_SHIFT, help="Move training images by up to so many pixels.")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="one-cycle or cosine.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, or mixed (bfloat16 where the device has it).")] = None,
    mean: MeanOption = None,
    std: StdOption = None,
    size: SizeOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> int:
    """Train a network of QCFS activations and write its weights with the recipe in the header.

    Killed at any moment, the same command goes on from the last whole epoch, to the same weights.

    Example: cos-export train digits --out digits.safetensors

    Many GPUs: torchrun --nproc-per-node 4 -m cos_export train resnet20 ...
    """
    from cos_export.terminal.progress_bars import progress_bars
    from cos_export.terminal.tables import training_table
    from cos_export.training.job import TrainingJob, run_training

    job = TrainingJob(
        model,
        out,
        data,
        test_data,
        weights,
        swap_activations,
        levels,
        classes,
        given(
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            seed=seed,
            flip=flip,
            shift=shift,
            schedule=schedule,
            precision=precision,
        ),
        numbers("--mean", mean),
        numbers("--std", std),
        height_and_width(size),
        device,
    )
    with progress_bars() as progress:
        result, curve = run_training(job, progress=progress)
    if not as_json:
        console().print(training_table(result))
        for path in (out, curve):
            show_path(path)
    return finish({"weights": str(out), "curve": str(curve), **asdict(result)}, as_json, True)


@dataclass(frozen=True, kw_only=True)
class OffsetsOptions(OneRule, NetworkOptions):
    """What `offsets` takes."""

    model: ModelOrBundleArgument
    out: Annotated[Path, typer.Option(help="Where to draw the picture, as .png.")]
    steps: Annotated[
        int | None, typer.Option(min=1, max=MAX_STEPS, help="T of the squared error; a bundle knows its own.")
    ] = None
    rho: Annotated[
        int, typer.Option(min=1, max=MOST_EXTRA_STEPS, help="Steps over which offset spikes are counted.")
    ] = 4
    samples: SamplesOption = None
    device: DeviceOption = "auto"
    as_json: JsonOption = False


@taking(OffsetsOptions)
def offsets(options: OffsetsOptions) -> int:
    """Count the spikes too few and too many in every layer, before and after COS x1, x2 and x4.

    Example: cos-export offsets digits --data digits --steps 4 --rho 4 --out offsets.png
    """
    from calibration import COS
    from calibration.offset_spikes import offset_spikes
    from cos_export.commands.opening import open_network
    from cos_export.device import resolve_device
    from cos_export.report.offset_picture import save_offset_picture
    from cos_export.report.picture import check_picture_destination
    from cos_export.terminal.offsets_table import offsets_table
    from cos_export.terminal.progress_bars import progress_bars

    check_picture_destination(options.out)
    resolve_device(options.device)
    choices = (
        None
        if options.steps is None
        else options.choices(COS(options.rho), options.steps, options.thresholds, options.device)
    )
    with progress_bars() as progress:
        opened = open_network(options, choices, progress=progress)
        images = opened.images.first(options.samples)
        offsets = offset_spikes(
            opened.network, images.images, options.steps, options.rho, device=options.device, progress=progress
        )
    document = offsets.to_dict()
    picture = save_offset_picture(options.out, document)
    if not options.as_json:
        console().print(offsets_table(document, options.model))
        show_notes(opened.notes)
        show_path(picture)
    return finish(
        {
            "model": options.model,
            "dataset": images.name,
            "picture": str(picture),
            "notes": list(opened.notes),
            **document,
        },
        options.as_json,
        True,
    )
