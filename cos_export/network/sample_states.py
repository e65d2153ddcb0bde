"""What a per-sample method sets beside the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cos_export.network.neuron_spec import FloatArray

__all__ = ["SampleStates"]


@dataclass(frozen=True)
class SampleStates:
    """What a per-sample method sets beside the graph, one entry for each sample of a batch.

    Attributes:
        v_init: Initial potentials by layer, (batch, ...), in place of the layer's own.
        silent: Neurons whose spikes are dropped by layer, (batch, ...), in place of the layer's own.
    """

    v_init: Mapping[str, FloatArray] = field(default_factory=dict)
    silent: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def part(self, samples: slice | NDArray[np.intp]) -> SampleStates:
        """The states of some of the samples."""
        return SampleStates(
            v_init={name: value[samples] for name, value in self.v_init.items()},
            silent={name: value[samples] for name, value in self.silent.items()},
        )
