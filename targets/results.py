"""A run that was made elsewhere, in the place of a target."""

from __future__ import annotations

import os
from pathlib import Path

from cos_export.bundle import Bundle
from cos_export.bundle.results import read_results
from cos_export.bundle.target import Availability
from cos_export.errors import InputError
from cos_export.network import FloatArray, SampleStates
from cos_export.progress import Progress, silent
from cos_export.simulation.trace import Trace

__all__ = ["RecordedResults"]


class RecordedResults:
    """Spikes and logits from a file, which `verify` judges as it does those of a target.

    Args:
        path: The .npz (`cos_export.bundle.results.read_results`).
        bundle: The bundle whose network was run.
        samples: How many inputs were; by default all golden ones.

    Raises:
        InputError: The file does not hold a run of this network with so many steps and samples.
    """

    def __init__(self, path: str | os.PathLike[str], bundle: Bundle, samples: int | None = None) -> None:
        self._path = Path(path)
        count = len(bundle.golden.images) if samples is None else samples
        self._trace = read_results(path, bundle.network, bundle.steps, count)

    @property
    def name(self) -> str:
        """What the table calls it."""
        return "results"

    def available(self) -> Availability:
        """It is always there."""
        return Availability(ready=True, version=self._path.name)

    def run(
        self,
        bundle: Bundle,
        images: FloatArray,
        steps: int,
        *,
        states: SampleStates | None = None,
        record_spikes: bool = True,
        progress: Progress = silent,
    ) -> Trace:
        """The recorded run; arguments as `Target.run` says.

        Raises:
            InputError: It is of other steps, or of another number of samples.
        """
        if self._trace.logits.shape[:2] != (steps, len(images)):
            recorded = "{} steps of {} samples".format(*self._trace.logits.shape[:2])
            raise InputError(f"{self._path} holds {recorded}, and {steps} of {len(images)} are asked for.")
        return self._trace
