"""SRP: per-sample silencing of neurons by their residual potential.

Hao et al., "Reducing ANN-SNN Conversion Error through Residual Membrane Potential", AAAI 2023, arXiv 2302.02091.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calibration.methods.method import PerSampleMethod, option
from cos_export.bounds import MOST_EXTRA_STEPS
from cos_export.network import SampleStates, SpikingNetwork, half_potentials
from cos_export.simulation import Observer
from cos_export.simulation.fixed_point import start_potentials
from cos_export.simulation.neuron import NeuronTensors, integrate_and_fire
from cos_export.simulation.presimulation import RESIDUAL, ResidualSilencing
from cos_export.simulation.program import Program

__all__ = ["SRP"]


@dataclass(frozen=True)
class SRP(PerSampleMethod):
    """Per-sample calibration: `tau` steps of the whole network decide which neurons are silent in the run.

    All layers run tau steps together from v_init = theta / 2 with nothing silenced. A neuron with
    v(tau) <= theta / 1000 is silent in the run that follows, which starts again from theta / 2: its spikes are
    dropped and its potential goes on. One input costs tau + T steps.
    """

    tau: int = option(4, "Extra steps per sample.", flag="rho", minimum=1, maximum=MOST_EXTRA_STEPS)
    name: ClassVar[str] = "srp"
    synchronous_only: ClassVar[str] = (
        "srp silences neurons that fired before all of their input had come, and under the layer-wise schedule none "
        "does: there is nothing to silence. Use half, or static."
    )

    @property
    def presimulation(self) -> ResidualSilencing:
        """The silencing by the residual potential, of all layers together."""
        return ResidualSilencing(self.tau)

    @property
    def rho(self) -> int:
        """tau, the extra steps per sample."""
        return self.tau

    def presimulated(self, network: SpikingNetwork) -> SpikingNetwork:
        """The network from v_init = theta / 2 with nothing silenced."""
        return network.with_neurons(
            {name: replace(half_potentials(spec), silent=None) for name, spec in network.neurons.items()}
        )

    def run(self, program: Program, images: Tensor, steps: int, observe: Observer) -> tuple[Tensor, SampleStates]:
        """Calibrates and runs a batch; see `cos_export.simulation.PerSampleCalibration.run`."""
        silent: dict[str, Tensor] = {}
        start = {
            name: start_potentials(_from_half(neuron).v_init, program.network.quantisation, strict=neuron.strict)
            for name, neuron in program.neurons.items()
        }

        def listen(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
            run = integrate_and_fire(currents, self.tau, _from_half(neuron), overwrite=True)
            silent[name] = run.residual <= RESIDUAL * neuron.threshold
            return run.spikes

        def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
            silenced = replace(neuron, v_init=start[name], silent=silent[name])
            run = integrate_and_fire(currents, steps, silenced, overwrite=True)
            observe(name, run)
            return run.spikes

        program.propagate(images, listen)
        outputs = program.propagate(images, rule)
        halves = {
            name: np.broadcast_to(start[name].cpu().numpy(), silent[name].shape).astype(np.float32)
            for name in program.neurons
        }
        masks: dict[str, NDArray[np.bool_]] = {name: mask.cpu().numpy() for name, mask in silent.items()}
        return outputs, SampleStates(v_init=halves, silent=masks)


def _from_half(neuron: NeuronTensors) -> NeuronTensors:
    shape = neuron.v_init.shape
    return replace(neuron, v_init=torch.broadcast_to(neuron.threshold / 2, shape), silent=None)
