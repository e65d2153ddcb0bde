"""What a run of a network returns, the same for every target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cos_export.datasets import class_numbers
from cos_export.decisions import class_count, decisions
from cos_export.network import FloatArray, SampleStates

__all__ = ["Trace", "concatenate"]


@dataclass(frozen=True)
class Trace:
    """The record of one run.

    Attributes:
        logits: (steps, batch, classes); entry t - 1 is the mean readout of the first t steps.
        spikes: By layer, (steps, batch, ...) of booleans; empty if not recorded.
        potentials: By layer, v(t) after the reset, (steps, batch, ...); empty unless asked for.
        rho: Steps that were spent on each sample before the run.
        states: What a per-sample method set for this batch, or None for a static network.
    """

    logits: FloatArray
    spikes: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    potentials: Mapping[str, FloatArray] = field(default_factory=dict)
    rho: int = 0
    states: SampleStates | None = None

    @property
    def steps(self) -> int:
        """T, the number of steps."""
        return len(self.logits)

    @property
    def total_steps(self) -> int:
        """T_total = rho + T: what one input costs."""
        return self.rho + self.steps

    def part(self, samples: NDArray[np.intp]) -> Trace:
        """The trace of some of the samples, by their numbers."""
        return Trace(
            logits=self.logits[:, samples],
            spikes={name: value[:, samples] for name, value in self.spikes.items()},
            potentials={name: value[:, samples] for name, value in self.potentials.items()},
            rho=self.rho,
            states=None if self.states is None else self.states.part(samples),
        )

    def right(self, labels: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which samples are decided for their label after each of the steps, (steps, batch).

        Args:
            labels: (batch,) class numbers.

        Raises:
            InputError: They are not one class number for each sample, below the number of logits.
        """
        numbers = class_numbers(labels, self.logits.shape[1], class_count(self.logits.shape[-1]))
        return np.asarray(decisions(self.logits) == numbers)

    def accuracy(self, labels: NDArray[np.integer]) -> NDArray[np.float64]:
        """The share of `right` samples after each of the steps; arguments and errors are those."""
        return np.asarray(self.right(labels).mean(axis=1), np.float64)


def concatenate(traces: Sequence[Trace]) -> Trace:
    """The traces of consecutive batches as the trace of one."""
    first = traces[0]
    if len(traces) == 1:
        return first

    def join(parts: Sequence[Mapping[str, NDArray]], axis: int) -> dict[str, NDArray]:  # type: ignore[type-arg]
        return {name: np.concatenate([part[name] for part in parts], axis=axis) for name in parts[0]}

    states = None
    if first.states is not None:
        held = [trace.states for trace in traces if trace.states is not None]
        states = SampleStates(v_init=join([s.v_init for s in held], 0), silent=join([s.silent for s in held], 0))
    return Trace(
        logits=np.concatenate([trace.logits for trace in traces], axis=1),
        spikes=join([trace.spikes for trace in traces], 1),
        potentials=join([trace.potentials for trace in traces], 1),
        rho=first.rho,
        states=states,
    )
