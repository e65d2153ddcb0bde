"""The options that commands share which make something of a network and images for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cos_export.bounds import LEAST_OPSET
from cos_export.numerics import FLOAT32
from cos_export.terminal.option_fields import in_panel
from cos_export.terminal.options import (
    CalibrationDataOption,
    CalibrationSamplesOption,
    ClassesOption,
    ConditionOption,
    DataOption,
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
    ThresholdsOption,
    UnitThresholdsOption,
    WeightsOption,
    conventions_of,
    height_and_width,
    names,
    numbers,
)

if TYPE_CHECKING:  # what is slow to import is imported by the command that needs it
    from calibration import Method
    from calibration.choices import Choices
    from calibration.data_parts import DataParts
    from calibration.sources import Source
    from cos_export.nir_file.conventions import Conventions
    from cos_export.progress import Progress
    from cos_export.zoo.model_source import Model

__all__ = ["NETWORK", "BundleOptions", "NetworkOptions", "OneRule"]

NETWORK, IMAGES, NUMBERS, FILES = "Network", "Images", "Numbers", "Files"
"""Panels of --help."""


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """What every command takes that captures a network, or opens one, and reads images for it."""

    model: ModelArgument
    weights: WeightsOption = in_panel(NETWORK, None)
    classes: ClassesOption = in_panel(NETWORK, None)
    levels: LevelsOption = in_panel(NETWORK, None)
    max_pool: MaxPoolOption = in_panel(NETWORK, MaxPooling.exact)
    per_channel: PerChannelOption = in_panel(NETWORK, False)
    reset: ResetOption = in_panel(NETWORK, None)
    condition: ConditionOption = in_panel(NETWORK, None)
    dt: DtOption = in_panel(NETWORK, None)
    data: DataOption = in_panel(IMAGES)
    mean: MeanOption = in_panel(IMAGES, None)
    std: StdOption = in_panel(IMAGES, None)
    size: SizeOption = in_panel(IMAGES, None)

    @property
    def conventions(self) -> Conventions:
        """What the user says of a NIR file that does not say it."""
        return conventions_of(self.reset, self.condition, self.dt)

    @property
    def about_images(self) -> dict[str, Any]:
        """The mean, the std and the size of the images, as those who read them take them."""
        return {
            "mean": numbers("--mean", self.mean),
            "std": numbers("--std", self.std),
            "size": height_and_width(self.size),
        }

    def loaded(self) -> Model:
        """The network that they name.

        Raises:
            InputError: There is none, or its weights do not fit; and all else that `load_model` raises.
        """
        from cos_export.zoo.model_source import load_model

        return load_model(
            self.model, self.weights, levels=self.levels, classes=self.classes, conventions=self.conventions
        )

    def choices(
        self, method: Method, steps: int, thresholds: str, device: str, samples: int | None = None, **others: Any
    ) -> Choices:
        """What a conversion is to know.

        Args:
            method: Of calibration.
            steps: T.
            thresholds: The rule for those of plain ReLUs.
            device: Where to compute.
            samples: To calibrate on, at most.
            others: More fields of `Choices`.
        """
        from calibration.choices import Choices

        return Choices(
            method,
            steps,
            samples,
            self.levels,
            self.max_pool.value,
            thresholds,
            per_channel=self.per_channel,
            device=device,
            **others,
        )


@dataclass(frozen=True, kw_only=True)
class OneRule:
    """What every command takes that has one rule for the thresholds of plain ReLUs."""

    thresholds: ThresholdsOption = in_panel(NETWORK, "mmse")


@dataclass(frozen=True, kw_only=True)
class BundleOptions(NetworkOptions):
    """What every command takes that calibrates a network and writes a bundle."""

    out: OutOption
    golden: GoldenOption = 64
    device: DeviceOption = "auto"
    opset: OpsetOption = LEAST_OPSET
    as_json: JsonOption = False
    calibration_data: CalibrationDataOption = in_panel(IMAGES, None)
    samples: CalibrationSamplesOption = in_panel(IMAGES, None)
    numerics: NumericsOption = in_panel(NUMBERS, FLOAT32)
    quantisation: QuantisationOption = in_panel(NUMBERS, None)
    limits: LimitsOption = in_panel(NUMBERS, False)
    nir_compat: NirCompatOption = in_panel(FILES, None)
    unit_thresholds: UnitThresholdsOption = in_panel(FILES, False)
    dense_kernels: DenseKernelsOption = in_panel(FILES, False)

    def parts(self, source: Source, choices: Choices, *, held_out: int | None = None, progress: Progress) -> DataParts:
        """The images that they name; see `calibration.data_parts.data_parts`."""
        from calibration.data_parts import data_parts
        from cos_export.progress import one_piece

        with one_piece(progress, "reading the data"):
            return data_parts(
                source,
                self.data,
                choices,
                calibration=self.calibration_data,
                held_out=held_out,
                **self.about_images,
            )

    def bundle_choices(self, method: Method, steps: int, thresholds: str, device: str, **others: Any) -> Choices:
        """What a conversion is to know that writes a bundle; arguments as for `choices`."""
        return self.choices(
            method,
            steps,
            thresholds,
            device,
            self.samples,
            numerics=self.numerics,
            quantisation=tuple(names(self.quantisation or "")),
            unit_thresholds=self.unit_thresholds,
            dense_kernels=self.dense_kernels,
            **others,
        )
