"""What the manifest says of the step graph: the part of its schema that `StepInterface.to_dict` fills."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from cos_export.bundle.file_names import StepFile
from cos_export.bundle.manifest_fields import Name, Steps
from cos_export.reading.limits import MAX_DIMENSIONS

__all__ = ["StepEntry"]

StepCount = Annotated[int, Field(ge=1, lt=2**31)]
Scale = Annotated[FiniteFloat, Field(gt=0, lt=2.0**63)]
"""What 1 stands for."""
Side = Annotated[int, Field(ge=1, lt=2**31)]


class _Entry(BaseModel):
    """Keys that it does not know belong to later versions, and are left alone."""

    model_config = ConfigDict(strict=True, extra="allow")


class StepStateEntry(_Entry):
    """The potentials of a layer between two steps."""

    layer: Name
    input: Name
    output: Name
    spikes: Name
    type: Literal["float32", "int32"]
    shape: Annotated[list[Side], Field(min_length=1, max_length=MAX_DIMENSIONS)]
    silent: Name | None
    first_step: StepCount
    last_step: StepCount | None


class StepEntry(_Entry):
    """What goes in and out of the step graph, and how often it runs."""

    file: StepFile
    images: Name
    images_type: Literal["float32", "int8", "uint8"]
    images_scale: Scale
    start: Name
    step: Name | None
    states: Annotated[list[StepStateEntry], Field(min_length=1, max_length=10_000)]
    output: Name
    steps: StepCount
    readout_scale: Scale
    readout_steps: Steps
