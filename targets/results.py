"""A run that was made elsewhere, in the place of a target."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from cos_export.bundle import Bundle
from cos_export.bundle.results import golden_samples, read_results
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
        samples: How many inputs were run that are not the bundle's golden ones; by default it were these.

    Attributes:
        golden_samples: Which of the golden inputs were run, by their numbers from 0, if the file says so; else None,
            for all of them. It is what `verify` must be asked to judge: `samples=` of it.

    Raises:
        InputError: The file does not hold a run of this network with so many steps and samples.
    """

    golden_samples: tuple[int, ...] | None

    def __init__(self, path: str | os.PathLike[str], bundle: Bundle, samples: int | None = None) -> None:
        self._path = Path(path)
        self.golden_samples = golden_samples(path, bundle)
        if samples is not None and self.golden_samples is not None:
            raise InputError(
                f"{path} says in 'samples' which of the golden inputs were run, and other images are to be judged. "
                "Leave 'samples' out of the file: it must hold all of them."
            )
        count = samples or len(self.golden_samples or bundle.golden.images)
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
            InputError: It is of other steps, of another number of samples, or of other golden inputs.
        """
        if self._trace.logits.shape[:2] != (steps, len(images)):
            recorded = "{} steps of {} samples".format(*self._trace.logits.shape[:2])
            raise InputError(f"{self._path} holds {recorded}, and {steps} of {len(images)} are asked for.")
        if self.golden_samples is not None:
            own = bundle.golden.images[list(self.golden_samples)]
            if not np.array_equal(own, images):
                raise InputError(
                    f"{self._path} holds a run of the golden inputs {', '.join(map(str, self.golden_samples))}, and "
                    "others are asked for: verify(..., samples=results.golden_samples)."
                )
        return self._trace
