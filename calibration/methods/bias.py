"""Bias calibration: a constant current for each channel, and then the initial potential, both by the mean error.

Li et al., "A Free Lunch From ANN: Towards Efficient, Accurate Spiking Neural Networks Calibration", ICML 2021: the
bias calibration of its light pipeline, and the calibration of the potential.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from torch import Tensor

from calibration.layer_by_layer import CalibratedLayer, Currents, layer_by_layer
from calibration.methods.method import CalibrationRun, StaticMethod, option
from calibration.statistics import fired, mean_outputs, mean_spikes
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork
from cos_export.network.reparametrisation import with_current_bias
from cos_export.network.schedule import summed_steps
from cos_export.simulation.activations import clipped_activation
from cos_export.simulation.neuron import NeuronTensors
from cos_export.simulation.program import Program

__all__ = ["BiasCorrection"]

STAGE = "correcting the biases"


@dataclass(frozen=True)
class BiasCorrection(StaticMethod):
    """Static calibration by the mean error of each channel, and then by that of each neuron.

    Layer by layer, from the spikes of the calibrated layers before it, with a_ann the activation that the layer stands
    for in the network as it was given and a_snn = theta * spikes / T, both in the unit of the current,

        b       = E[a_ann - a_snn]        E: the mean over the images and the positions of a channel
        v_init += T E[a_ann - a_snn]      E: the mean over the images, of the layer that has b already

    b is added to the bias of the synapse before the layer (`cos_export.network.reparametrisation.with_current_bias`):
    nothing is new at inference. Published is the first line for all layers and then the second for all; here a layer
    gets both before the next one is looked at. Each layer's current is computed once where it fits in memory, and else
    three times, whatever the depth.
    """

    potential: bool = option(True, "Calibrate the potentials too.")
    name: ClassVar[str] = "bias"
    needs_data: ClassVar[bool] = True
    depends_on_steps: ClassVar[bool] = True

    def calibrate(self, network: SpikingNetwork, run: CalibrationRun) -> SpikingNetwork:
        """Sets the synapses' biases and v_init; see `StaticMethod.calibrate`.

        Raises:
            InputError: A layer is reset to a value: a residual potential that is lost corrects no mean.
            NetworkError: No synapse before a layer can take a bias.
        """
        for name, spec in network.neurons.items():
            if spec.reset != "subtract":
                raise InputError(f"Bias calibration needs the soft reset, and layer {name!r} is reset to a value.")
        # What cannot take a bias is refused before the work, and not after it.
        with_current_bias(network, dict.fromkeys(network.layers, 0.0))
        data, steps, device, checkpoint = run.data, run.steps, run.device, run.checkpoint
        rates = mean_outputs(Program(network, device), data, clipped_activation)
        expected = {name: mean[0] for name, mean in rates.items()}
        window = summed_steps(network.schedule, steps)
        _, kept = checkpoint.load(STAGE) or (0, {})
        biases = {key.removeprefix("bias/"): value.to(device) for key, value in kept.items() if key[:5] == "bias/"}
        starts = {key.removeprefix("v_init/"): value.to(device) for key, value in kept.items() if key[:7] == "v_init/"}

        def calibrate_layer(name: str, neuron: NeuronTensors, currents: Currents) -> CalibratedLayer:
            run.progress(STAGE, network.layers.index(name), len(network.layers))
            if name not in biases:
                checkpoint.save(STAGE, len(biases), _state(biases, starts))
                error = expected[name] - mean_spikes(currents(), neuron, steps, len(data), network.schedule)
                biases[name] = _channel_means(neuron.threshold * error).to(neuron.v_init.dtype)
                starts[name] = neuron.v_init
                if self.potential:
                    added = window * _as_current(biases[name], neuron)
                    error = expected[name] - mean_spikes(
                        currents(), neuron, steps, len(data), network.schedule, added=added
                    )
                    starts[name] = (neuron.v_init + steps * neuron.threshold * error).to(neuron.v_init.dtype)
            added = window * _as_current(biases[name], neuron)
            moved = replace(neuron, v_init=starts[name])
            return CalibratedLayer(lambda batch: fired(batch + added, moved, steps, network.schedule))

        layer_by_layer(Program(network, device, window=window), data, calibrate_layer)
        run.progress(STAGE, len(network.layers), len(network.layers))
        network = with_current_bias(network, {name: value.cpu().numpy() for name, value in biases.items()})
        return network.with_neurons(
            {
                name: replace(spec, v_init=np.ascontiguousarray(starts[name].cpu().numpy()))
                for name, spec in network.neurons.items()
            }
        )


def _channel_means(values: Tensor) -> Tensor:
    """(channels, ...) as (channels,)."""
    return values.reshape(len(values), -1).mean(1)


def _as_current(bias: Tensor, neuron: NeuronTensors) -> Tensor:
    return bias.reshape(-1, *[1] * (neuron.v_init.ndim - 1))


def _state(biases: dict[str, Tensor], starts: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"bias/{name}": value for name, value in biases.items()} | {
        f"v_init/{name}": value for name, value in starts.items()
    }
