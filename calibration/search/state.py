"""The file that a search goes on from: what was measured, as JSON, written anew after each candidate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, ValidationError

from calibration.records import method_from_record
from calibration.search.candidates import Deployment
from cos_export.atomic_file import atomic_write, check_derived_destination
from cos_export.errors import InputError
from cos_export.network.schedule import Schedule
from cos_export.processes import is_main
from cos_export.reading.json_file import read_json

__all__ = ["Measured", "SearchState"]

FORMAT = "cos-export-search/1"

Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Count = Annotated[FiniteFloat, Field(ge=0)]


class Measured(BaseModel):
    """What one deployment was measured at, on images held out.

    Attributes:
        method: The method's record.
        steps: T.
        schedule: When layers fire.
        thresholds: The rule that thresholds of ReLUs come from, or None where none were to be found.
        accuracy: The share of right answers.
        drop: Points of accuracy below the artificial network, on the same images.
        drop_error: The standard error of `drop`, from the images that only one of the two decides rightly.
        total_steps: T_total = rho + T.
        latency: Steps until the readout is complete.
        operations: Synaptic operations of one image.
        failure: Why it could not be measured, "" if it was; then the figures are None.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    method: dict[str, JsonValue]
    steps: Annotated[int, Field(ge=1)]
    schedule: Schedule
    thresholds: Literal["mmse", "percentile", "maximum"] | None = None
    accuracy: Share | None = None
    drop: FiniteFloat | None = None
    drop_error: Count | None = None
    total_steps: int | None = None
    latency: Count | None = None
    operations: Count | None = None
    failure: str = ""

    @property
    def deployment(self) -> Deployment:
        """What was measured.

        Raises:
            InputError: Its method is not known here.
        """
        schedule: Schedule = self.schedule
        return Deployment(method_from_record(self.method), self.steps, schedule, self.thresholds)


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format: Literal["cos-export-search/1"]
    depends_on: dict[str, JsonValue]
    measured: Annotated[list[Measured], Field(max_length=100_000)]


class SearchState:
    """What was measured until now, in memory and in a file.

    Args:
        path: The file, or None to keep it in memory alone.
        depends_on: All that the figures depend on beside the deployment, as plain JSON.

    Raises:
        InputError: The file is there and is not the state of a search, or that of another one.
    """

    def __init__(self, path: Path | None, depends_on: Mapping[str, Any]) -> None:
        self._path, self._depends_on = path, dict(depends_on)
        self._measured: dict[str, Measured] = {}
        if path is None:
            return
        target = check_derived_destination(path, FORMAT.encode())
        if target.exists():
            for one in self._read(target).measured:
                self._measured[one.deployment.key] = one

    def _read(self, path: Path) -> _File:
        try:
            file = _File.model_validate(read_json(path))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(
                f"{path} is not the state of a search: {where}: {first['msg']}. Remove it to search anew."
            ) from error
        if file.depends_on != self._depends_on:
            known = {*file.depends_on, *self._depends_on}
            differ = sorted(key for key in known if file.depends_on.get(key) != self._depends_on.get(key))
            raise InputError(
                f"{path} is the state of another search: {', '.join(differ)} differ. Remove it, or name another --out."
            )
        return file

    def get(self, deployment: Deployment) -> Measured | None:
        """What is known of a deployment."""
        return self._measured.get(deployment.key)

    def add(self, deployment: Deployment, measured: Measured) -> None:
        """Keeps what was measured, in the file at once, which the main one of several processes writes."""
        self._measured[deployment.key] = measured
        if self._path is not None and is_main():
            document = {
                "format": FORMAT,
                "depends_on": self._depends_on,
                "measured": [one.model_dump() for one in self._measured.values()],
            }
            with atomic_write(self._path) as draft:
                draft.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", "utf-8")
