"""What manifest.json must hold: its schema, checked before anything is made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    ValidationError,
    model_validator,
)

from cos_export.bundle.cost_entry import CostEntry
from cos_export.bundle.file_names import MANIFEST, OPTIONAL_FILES, REQUIRED_FILES, STEP_FILE
from cos_export.bundle.manifest_fields import Amount, Count, Extra, Name, Numerics, Share, Steps, Text
from cos_export.bundle.step_entry import StepEntry
from cos_export.errors import BundleError, InputError
from cos_export.network.schedule import Schedule
from cos_export.network.spiking_network import InputEncoding
from cos_export.reading.json_file import parse_json, read_json
from cos_export.reading.limits import MAX_DIMENSIONS, MAX_ONNX, MAX_STEPS

__all__ = ["BUNDLE_FORMAT", "BUNDLE_FORMATS", "check_manifest", "check_metrics", "read_manifest"]

BUNDLE_FORMAT = "cos-export-bundle/3"
"""What manifest.json calls the format that is written."""

BUNDLE_FORMATS = ("cos-export-bundle/1", "cos-export-bundle/2", BUNDLE_FORMAT)
"""The formats that are read. The first had no record of the calibration method, and one T for two. Up to the second,
logits of integers were divided by t and then multiplied by their scale, which rounds twice."""

_LISTED = 5
"""Faults of a manifest that a message names."""

StepKey = Annotated[str, Field(pattern="^[1-9][0-9]{0,5}$")]
Number = FiniteFloat | Literal["nan", "inf", "-inf"]
"""JSON has no other spelling of what is not finite."""
Shape = Annotated[list[Annotated[int, Field(ge=1, lt=2**31)]], Field(min_length=1, max_length=MAX_DIMENSIONS)]


class _Entry(BaseModel):
    """An object of the manifest. Keys that it does not know belong to later versions, and are left alone."""

    model_config = ConfigDict(strict=True, extra="allow")


class FileEntry(_Entry):
    """A file of the bundle: its size in bytes, and its SHA-256 in hexadecimal."""

    bytes: Annotated[int, Field(ge=0, le=2**36)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Layer(_Entry):
    """A layer of neurons; v_init in units of the threshold."""

    name: Name
    shape: Shape
    threshold_min: Annotated[FiniteFloat, Field(gt=0)]
    threshold_max: Annotated[FiniteFloat, Field(gt=0)]
    v_init_min: FiniteFloat
    v_init_mean: FiniteFloat
    v_init_max: FiniteFloat
    levels: Annotated[int, Field(ge=1, lt=2**31)] | None


class MethodRow(_Entry):
    """The accuracies of a method by T, and the steps that it spends on each sample before."""

    method: Name
    num_timesteps: Steps | None
    rho: Extra
    accuracy: Annotated[dict[StepKey, Share], Field(max_length=MAX_STEPS)]
    latency: Annotated[dict[StepKey, Count], Field(max_length=MAX_STEPS)] | None = None
    synaptic_operations: Annotated[dict[StepKey, Amount], Field(max_length=MAX_STEPS)] | None = None
    schedule: Schedule = "synchronous"

    @property
    def costs(self) -> tuple[dict[str, int] | dict[str, float] | None, ...]:
        """What stands beside the accuracies."""
        return self.latency, self.synaptic_operations


class Metrics(_Entry):
    """What was measured at the export. With `methods`, also on what, and what the artificial network has there."""

    dataset: Text | None = None
    samples: Count | None = None
    ann_accuracy: Share | None = None
    methods: Annotated[list[MethodRow], Field(max_length=256)] = []

    @model_validator(mode="after")
    def _measured_on_something(self) -> Self:
        if self.methods and (self.dataset is None or self.samples is None or self.ann_accuracy is None):
            raise ValueError("'methods' needs 'dataset', 'samples' and 'ann_accuracy' beside it")
        if len({tuple(row.accuracy) for row in self.methods}) > 1:
            raise ValueError("the methods have accuracies at different T")
        for row in self.methods:
            if any(costs is not None and costs.keys() != row.accuracy.keys() for costs in row.costs):
                raise ValueError("a method has costs at other T than accuracies")
        return self


class Place(_Entry):
    """A spike, its layer, step, sample and neuron, and by how much it missed or passed its threshold."""

    layer: Name
    step: Count
    sample: Count
    neuron: Annotated[list[Count], Field(max_length=MAX_DIMENSIONS)]
    fired: bool
    margin: Number
    bound: Number


class TargetSummary(_Entry):
    """What a target fired at the export."""

    passed: bool
    version: Text
    spikes_compared: Count
    mismatches: Count
    local_violations: Count
    logit_difference: Number
    decisions_changed: Count
    first_divergence: Place | None
    violations: Annotated[list[Place], Field(max_length=100)] = []


class Refusal(_Entry):
    """Why a target has no result."""

    error: Text
    exit_code: Annotated[int, Field(ge=1, le=3)]


class Parity(_Entry):
    """The parity at the export."""

    passed: bool
    samples: Count
    steps: Steps
    targets: Annotated[dict[Name, TargetSummary], Field(max_length=64)]
    record_faults: Annotated[list[Text], Field(max_length=8)] = []
    refused: Annotated[dict[Name, Refusal], Field(max_length=64)] = {}


class Normalisation(_Entry):
    """(pixel - mean) / std per channel is what the network was given; one number each stands for all channels."""

    mean: Annotated[list[FiniteFloat], Field(min_length=1, max_length=4096)]
    std: Annotated[list[Annotated[FiniteFloat, Field(gt=0)]], Field(min_length=1, max_length=4096)]


class Manifest(_Entry):
    """manifest.json."""

    format: Literal["cos-export-bundle/1", "cos-export-bundle/2", "cos-export-bundle/3"]
    num_timesteps: Steps
    rho: Extra
    total_timesteps: Count
    method: Name
    numerics: Numerics
    input_shape: Shape
    output_shape: Shape
    readout_shape: Shape | None = None
    left_out: Annotated[list[Text], Field(max_length=64)] = []
    neurons: Count
    golden_samples: Annotated[int, Field(ge=1, lt=2**31)]
    golden_correct: Count | None = None
    layers: Annotated[list[Layer], Field(min_length=1, max_length=10_000)]
    versions: Annotated[dict[Name, Text], Field(max_length=64)]
    metrics: Metrics
    parity: Parity | None
    files: dict[str, FileEntry]
    quantisation: Annotated[dict[str, JsonValue], Field(max_length=64)] | None = None
    normalisation: Normalisation | None = None
    classes: Annotated[list[Text], Field(max_length=2**17)] | None = None
    calibration: Annotated[dict[str, JsonValue], Field(max_length=256)] | None = None
    calibrated_timesteps: Steps | None = None
    schedule: Schedule = "synchronous"
    input_encoding: InputEncoding = "constant"
    costs: CostEntry | None = None
    step: StepEntry | None = None
    refused_by_nir: Annotated[dict[Name, Text], Field(max_length=10_000)] = {}

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.total_timesteps != self.rho + self.num_timesteps:
            raise ValueError("total_timesteps is not rho + num_timesteps")
        missing = [name for name in REQUIRED_FILES if name not in self.files]
        strange = [name for name in self.files if name not in (*REQUIRED_FILES, *OPTIONAL_FILES)]
        if missing:
            raise ValueError(f"files lacks {', '.join(missing)}")
        if strange:
            raise ValueError(f"files lists {strange[0][:80]!r}, which is not a file of a bundle")
        if any(entry.bytes > MAX_ONNX for name, entry in self.files.items() if name.endswith(".onnx")):
            raise ValueError(f"files lists an ONNX graph of more than {MAX_ONNX:,} bytes")
        unsaid = {"calibration", "calibrated_timesteps"} - self.model_fields_set
        if self.format == BUNDLE_FORMAT and (STEP_FILE not in self.files or self.step is None):
            raise ValueError(f"files lacks {STEP_FILE}, or step: {BUNDLE_FORMAT} has both")
        if unsaid and self.format != BUNDLE_FORMATS[0]:
            raise ValueError(f"{', '.join(sorted(unsaid))}: Field required in {self.format}, or null")
        if self.calibration is not None and not isinstance(self.calibration.get("name"), str):
            raise ValueError("calibration lacks its name")
        return self


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the bundle in `folder`, as JSON has it.

    Raises:
        BundleError: There is none, or it is not JSON within the limits, of a later format or against its schema.
    """
    path = folder / MANIFEST
    try:
        document = read_json(path, links=False)
    except InputError as error:
        raise BundleError(str(error)) from error
    check_manifest(document, str(path))
    return dict(document)


def check_manifest(document: Any, where: str) -> None:
    """Checks a manifest, as JSON has it, against the schema.

    Raises:
        BundleError: It is of another format, or lacks something, or holds what is out of range.
    """
    kind = document.get("format") if isinstance(document, Mapping) else None
    if kind not in BUNDLE_FORMATS:
        raise BundleError(
            f"{where} has the format {str(kind)[:80]!r}, and this version reads {' and '.join(BUNDLE_FORMATS)}. "
            "Export the bundle again, or update cos-export."
        )
    faults = _faults(Manifest, document)
    if faults:
        raise BundleError(f"{where} is not the manifest of a bundle:\n  {faults}")


def check_metrics(metrics: Mapping[str, Any]) -> None:
    """Checks what a caller wants to have in a manifest as its metrics.

    Raises:
        InputError: They are not JSON, or what the report shows of them is out of range.
    """
    try:
        document = parse_json(json.dumps(metrics, allow_nan=False), "metrics")
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"The metrics cannot be written as JSON: {error}.") from error
    faults = _faults(Metrics, document)
    if faults:
        raise InputError(f"The metrics cannot be shown in a report:\n  {faults}")


def _faults(schema: type[BaseModel], document: Any) -> str:
    """What is wrong with a value, a line for each of the first few faults; empty if nothing."""
    try:
        schema.model_validate(document)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        listed = [f"{'.'.join(str(part)[:80] for part in fault['loc']) or 'it'}: {fault['msg']}" for fault in faults]
        more = f"\n  and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
        return "\n  ".join(listed[:_LISTED]) + more
    return ""
