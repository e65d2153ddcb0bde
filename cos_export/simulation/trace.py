"""What a run of a network returns, the same for every target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cos_export.datasets import class_numbers
from cos_export.decisions import class_count, decisions
from cos_export.network import FloatArray, SampleStates, SpikingNetwork
from cos_export.simulation.sample_parts import SampleParts

__all__ = ["Recording", "Trace"]


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
        own = self.states or SampleStates()
        groups: list[tuple[Mapping[str, NDArray[Any]], int]]
        groups = [(self.spikes, 1), (self.potentials, 1), (own.v_init, 0), (own.silent, 0)]
        arrays = [(array, axis) for group, axis in groups for array in group.values()]
        nbytes = sum(array.nbytes // array.shape[axis] * len(samples) for array, axis in arrays)
        spikes, potentials, v_init, silent = (_chosen(group, axis, samples, nbytes) for group, axis in groups)
        states = None if self.states is None else SampleStates(v_init=v_init, silent=silent)
        return Trace(self.logits[:, samples], spikes, potentials, self.rho, states)

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


class Recording:
    """The trace of a run whose batches come one after the other, in memory or in temporary files (`SampleParts`).

    Args:
        network: What is run.
        samples: How many samples.
        steps: T.
        spikes: Whether the batches hold all spikes.
        potentials: Whether they hold all potentials.
        states: Whether they hold the states of each sample.

    Attributes:
        spikes: Takes those of a layer by its name, where they come before the batch's trace.
        potentials: Likewise.
        v_init: Likewise initial potentials of each sample.
        silent: Likewise silent neurons of each sample.
    """

    def __init__(
        self,
        network: SpikingNetwork,
        samples: int,
        steps: int,
        *,
        spikes: bool = True,
        potentials: bool = False,
        states: bool = False,
    ) -> None:
        # A byte for a spike or a mask, four for a potential.
        nbytes = network.neuron_count * samples * (steps * (spikes + 4 * potentials) + 5 * states)
        self.spikes, self.potentials = SampleParts(samples, 1, nbytes), SampleParts(samples, 1, nbytes)
        self.v_init, self.silent = SampleParts(samples, 0, nbytes), SampleParts(samples, 0, nbytes)
        self._logits: list[FloatArray] = []
        self._rho, self._per_sample = 0, False

    def add(self, trace: Trace) -> None:
        """Takes the trace of the next batch.

        Raises:
            StorageError: It does not fit in memory, and the temporary folder cannot hold it.
            ParityError: It is not shaped as those before.
        """
        self._logits.append(trace.logits)
        self._rho = trace.rho
        groups: list[tuple[SampleParts, Mapping[str, NDArray[Any]]]]
        groups = [(self.spikes, trace.spikes), (self.potentials, trace.potentials)]
        if trace.states is not None:
            self._per_sample = True
            groups += [(self.v_init, trace.states.v_init), (self.silent, trace.states.silent)]
        for parts, arrays in groups:
            for name, array in arrays.items():
                parts.add(name, array)

    def trace(self) -> Trace:
        """The trace of all batches, once, after the last one.

        Raises:
            ParityError: Some samples have not come.
        """
        v_init, silent = self.v_init.joined(), self.silent.joined()
        per_sample = self._per_sample or v_init or silent
        states = SampleStates(v_init=v_init, silent=silent) if per_sample else None
        logits = self._logits[0] if len(self._logits) == 1 else np.concatenate(self._logits, axis=1)
        return Trace(logits, self.spikes.joined(), self.potentials.joined(), self._rho, states)


def _chosen(
    arrays: Mapping[str, NDArray[Any]], axis: int, samples: NDArray[np.intp], nbytes: int
) -> dict[str, NDArray[Any]]:
    """Some of the samples of arrays, of a run that takes as many bytes."""
    parts = SampleParts(len(samples), axis, nbytes)
    for name, array in arrays.items():
        for block in parts.blocks(array.nbytes // array.shape[axis]):
            parts.add(name, array.take(samples[block], axis))
    return parts.joined()
