"""The options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cos_export.bounds import LEAST_OPSET, MAX_STEPS, MOST_CLASSES, MOST_LEVELS, MOST_OPSET, MOST_PIXELS, MOST_SAMPLES
from cos_export.errors import InputError
from cos_export.numerics import FLOAT32, INTEGERS

if TYPE_CHECKING:  # what is slow to import is imported by the command that needs it
    from cos_export.nir_file.conventions import Conventions

__all__ = [
    "CalibrationDataOption",
    "CalibrationSamplesOption",
    "ClassesOption",
    "Condition",
    "ConditionOption",
    "DataOption",
    "DeadlineOption",
    "DenseKernelsOption",
    "DeviceOption",
    "DtOption",
    "Firing",
    "GoldenOption",
    "JsonOption",
    "LevelsOption",
    "LimitsOption",
    "MaxPoolOption",
    "MaxPooling",
    "MeanOption",
    "ModelArgument",
    "ModelOrBundleArgument",
    "NirCompat",
    "NirCompatOption",
    "NumericsOption",
    "OpsetOption",
    "OutOption",
    "PerChannelOption",
    "QuantisationOption",
    "Reset",
    "ResetOption",
    "SamplesOption",
    "ScheduleOption",
    "SizeOption",
    "StdOption",
    "StepsOption",
    "TargetsOption",
    "ThresholdsOption",
    "UnitThresholdsOption",
    "WeightsOption",
    "conventions_of",
    "given",
    "height_and_width",
    "names",
    "numbers",
    "step_ranges",
    "whole_numbers",
]


class MaxPooling(StrEnum):
    """What to do with max pooling."""

    exact = "exact"
    average = "average"
    refuse = "refuse"


class Firing(StrEnum):
    """When a layer fires."""

    synchronous = "synchronous"
    layerwise = "layerwise"


class NirCompat(StrEnum):
    """A version of nir whose readers are to open the file."""

    v1_0_4 = "1.0.4"


class Reset(StrEnum):
    """How a neuron is reset."""

    subtract = "subtract"
    value = "value"


class Condition(StrEnum):
    """When a neuron fires."""

    at_or_above = ">="
    above = ">"


ModelOrBundleArgument = Annotated[str, typer.Argument(help="As for check, or the folder of a bundle.")]
ModelArgument = Annotated[
    str, typer.Argument(help="A zoo name (digits, resnet20, ...), package.module:factory, or a .nir file.")
]
ResetOption = Annotated[
    Reset | None, typer.Option(help="Of a .nir file that does not say: minus the threshold, or to v_reset (NIR's own).")
]
ConditionOption = Annotated[
    Condition | None, typer.Option(help="Of a .nir file that does not say: at the threshold, or above it (NIR's own).")
]
DtOption = Annotated[
    float | None, typer.Option("--dt", help="Of a .nir file that does not say: the length of a step in the unit of r.")
]
WeightsOption = Annotated[
    Path | None, typer.Option(help="Weights: .safetensors, or of torch.save (.pth, .ckpt, .bin, ...).")
]
DataOption = Annotated[
    str,
    typer.Option(help="digits, an .npz of images and labels, a folder of images by class, or package.module:factory."),
]
CalibrationDataOption = Annotated[
    str | None, typer.Option(help="What to calibrate on, if not a part of --data; given as --data is.")
]
SizeOption = Annotated[
    str | None, typer.Option(help="Height and width, as 32,32, that the images of a folder are resized to.")
]
MeanOption = Annotated[str | None, typer.Option(help="Subtracted from each channel: one number, or 0.5,0.5,0.5.")]
StdOption = Annotated[str | None, typer.Option(help="Each channel is divided by it: one number, or 0.2,0.2,0.2.")]
TargetsOption = Annotated[
    str, typer.Option(help="With commas, of those that cos-export targets lists; lava:faithful is a back end of lava.")
]
DeadlineOption = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="That each run of a target may take; by default plenty.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
SamplesOption = Annotated[int | None, typer.Option(min=1, max=MOST_SAMPLES, help="How many images to take.")]
LevelsOption = Annotated[
    int | None, typer.Option(min=1, max=MOST_LEVELS, help="L of quantised activations, where nothing says it.")
]
ClassesOption = Annotated[
    int | None, typer.Option(min=2, max=MOST_CLASSES, help="Classes of a zoo network, if not its usual ones.")
]
MaxPoolOption = Annotated[
    MaxPooling,
    typer.Option(help="Compute max pooling exactly, replace it by average pooling, or refuse it."),
]

ScheduleOption = Annotated[
    Firing,
    typer.Option(help="Every layer fires from the first step on, or only when all T steps of its input have come."),
]
StepsOption = Annotated[int, typer.Option(min=1, max=MAX_STEPS, help="T: steps to calibrate for and to deploy at.")]
OutOption = Annotated[Path, typer.Option(help="Folder of the bundle; an earlier bundle there is replaced.")]
CalibrationSamplesOption = Annotated[
    int | None, typer.Option("--samples", min=1, max=MOST_SAMPLES, help="Calibration images; by default up to 1,000.")
]
GoldenOption = Annotated[
    int, typer.Option(min=1, max=MOST_SAMPLES, help="Inputs whose every spike is recorded and compared.")
]
OpsetOption = Annotated[int, typer.Option(min=LEAST_OPSET, max=MOST_OPSET, help="Of ONNX. Every reader takes 13.")]
ThresholdsOption = Annotated[str, typer.Option(help="Of plain ReLUs: mmse, percentile or maximum.")]
PerChannelOption = Annotated[bool, typer.Option("--per-channel", help="A threshold for each channel of a ReLU.")]
NumericsOption = Annotated[
    str, typer.Option(help=f"{FLOAT32}, or {', '.join(INTEGERS)}: integers that every target computes alike.")
]
QuantisationOption = Annotated[
    str | None, typer.Option(help="Of integers, with commas: per-channel, power-of-two, even-weights.")
]
NirCompatOption = Annotated[
    NirCompat | None,
    typer.Option(help="For readers of this version of nir and older: without the v_reset that they fail on."),
]
UnitThresholdsOption = Annotated[
    bool, typer.Option("--unit-thresholds", help="Every threshold is 1: it is divided out of the weights before it.")
]
DenseKernelsOption = Annotated[
    bool,
    typer.Option("--dense-kernels", help="Groups and oblong kernels as dense square ones, which nir.read(path) opens."),
]
LimitsOption = Annotated[bool, typer.Option("--limits", help="Of integers: print the ranges beside Loihi 2's limits.")]


def given(**options: object) -> dict[str, object]:
    """The options that the user gave."""
    return {name: value for name, value in options.items() if value is not None}


def conventions_of(reset: Reset | None, condition: Condition | None, dt: float | None) -> Conventions:
    """What the user says of a NIR file that does not say it."""
    from cos_export.nir_file.conventions import Conventions

    return Conventions(
        None if reset is None else "subtract" if reset is Reset.subtract else "value",
        None if condition is None else ">=" if condition is Condition.at_or_above else ">",
        dt,
    )


def names(listed: str) -> list[str]:
    """The entries of a list with commas."""
    return [name.strip() for name in listed.split(",") if name.strip()]


def height_and_width(listed: str | None) -> tuple[int, int] | None:
    """The two numbers of --size, or None if there are none.

    Raises:
        InputError: They are not two whole numbers above 0, or too many pixels.
    """
    found = whole_numbers("--size", listed)
    if found is None:
        return None
    if len(found) != 2 or found[0] * found[1] > MOST_PIXELS:
        raise InputError(
            f"--size takes height and width, as 32,32, of {MOST_PIXELS:,} pixels at most, and got {listed!r}."
        )
    return found[0], found[1]


def numbers(option: str, listed: str | None) -> list[float] | None:
    """The numbers of a list with commas, or None if there is none.

    Raises:
        InputError: One is not a number.
    """
    if listed is None:
        return None
    try:
        return [float(number) for number in listed.split(",")]
    except ValueError:
        raise InputError(f"{option} takes numbers with commas between them, and got {listed!r}.") from None


def whole_numbers(option: str, listed: str | None) -> list[int] | None:
    """The whole numbers of a list with commas, or None if there is none.

    Raises:
        InputError: One is not a whole number above 0.
    """
    if listed is None:
        return None
    try:
        numbers = [int(number) for number in listed.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise InputError(f"{option} takes whole numbers above 0 with commas between them, and got {listed!r}.")
    return numbers


MOST_NUMBERS = 1000
"""Whole numbers that ranges may come to."""


def step_ranges(option: str, listed: str) -> list[int]:
    """The numbers of steps of a list with commas, in which 2..5 stands for 2, 3, 4, 5: each once, rising.

    Raises:
        InputError: One is not a whole number above 0, or too large, a range has no number, or they are too many.
    """
    wrong = (
        f"{option} takes whole numbers up to {MAX_STEPS:,}, and ranges as 1..8, {MOST_NUMBERS:,} numbers at most, "
        f"and got {listed!r}."
    )
    steps: set[int] = set()
    for part in names(listed):
        ends = whole_numbers(option, part.replace("..", ",", 1))
        if ends is None or len(ends) > 2 or not 0 <= ends[-1] - ends[0] < MOST_NUMBERS:
            raise InputError(wrong)
        steps.update(range(ends[0], ends[-1] + 1))
    if not 1 <= len(steps) <= MOST_NUMBERS or max(steps) > MAX_STEPS:
        raise InputError(wrong)
    return sorted(steps)
