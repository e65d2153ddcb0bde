"""FTBC: a bias for each channel and step, found by runs forward alone.

Wu et al., "FTBC: Forward Temporal Bias Correction for Optimizing ANN-SNN Conversion", ECCV 2024, arXiv 2403.18388.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from calibration.methods.method import CalibrationRun, StaticMethod, option
from cos_export.bounds import LARGEST_SEED, MOST_BATCH, MOST_ROUNDS
from cos_export.network import SpikingNetwork
from cos_export.processes import summed
from cos_export.simulation.activations import clipped_activation
from cos_export.simulation.neuron import NeuronTensors, step
from cos_export.simulation.program import Program

__all__ = ["FTBC"]

STAGE = "correcting the bias of each step"


@dataclass(frozen=True)
class FTBC(StaticMethod):
    """Static calibration by the mean error of each channel at each step.

    For each batch of calibration images, layer by layer and step by step, with a_ann the activation that the layer
    stands for and theta s(t) what it sends at step t, both in the unit of the current,

        beta(t) += alpha E[a_ann - theta s(t)]      E: the mean over the batch and the positions of a channel

    The spike s(t) is fired with the bias as it was; then the step is taken again with the new bias, and what it fires
    and leaves behind is what the later steps and layers see. Two runs of the network for each batch, whatever the
    depth. The bias is `NeuronSpec.bias`, one number for each step and channel; v_init stays as it is.
    """

    alpha: float = option(0.5, "How much of the error is corrected at once.", above=0, maximum=1)
    batches: int = option(
        10, "How many batches, each in a new order of the images once all were seen.", minimum=1, maximum=MOST_ROUNDS
    )
    samples: int = option(200, "Images in each batch.", flag="batch", minimum=1, maximum=MOST_BATCH)
    seed: int = option(0, "Of the order of the calibration images.", minimum=0, maximum=LARGEST_SEED)
    name: ClassVar[str] = "ftbc"
    synchronous_only: ClassVar[str] = (
        "ftbc sets a bias for each step, and a layer-wise neuron is charged with their sum alone: use bias."
    )
    needs_data: ClassVar[bool] = True
    depends_on_steps: ClassVar[bool] = True

    def calibrate(self, network: SpikingNetwork, run: CalibrationRun) -> SpikingNetwork:
        """Sets the bias of each step; see `StaticMethod.calibrate`."""
        data, steps, device, checkpoint = run.data, run.steps, run.device, run.checkpoint
        program = Program(network, device)
        first, kept = checkpoint.load(STAGE) or (0, {})
        biases = {name: _start(neuron, steps, device) for name, neuron in program.neurons.items()}
        for name, value in kept.items():
            biases[name].copy_(value)
        batches = data.shuffled(self.samples, self.seed, first, device=device)
        for done in range(first, self.batches):
            run.progress(STAGE, done, self.batches)
            checkpoint.save(STAGE, done, biases)
            _correct(program, next(batches).images, biases, self.alpha, min(self.samples, len(data)))
        run.progress(STAGE, self.batches, self.batches)
        return network.with_neurons(
            {name: replace(spec, bias=_array(biases[name])) for name, spec in network.neurons.items()}
        )


def _start(neuron: NeuronTensors, steps: int, device: torch.device) -> Tensor:
    """The network's own bias, or zero, for each step: (steps, channels) in float64."""
    table = torch.zeros(steps, len(neuron.v_init), dtype=torch.float64, device=device)
    if neuron.bias is not None:
        known = min(steps, len(neuron.bias))
        table[:known] = neuron.bias[:known]
    return table


def _correct(program: Program, images: Tensor, biases: dict[str, Tensor], alpha: float, samples: int) -> None:
    """Updates the biases in place on one batch, of whose `samples` images each process has its share."""
    expected: dict[str, Tensor] = {}

    def remember(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        outputs = clipped_activation(name, neuron, currents)
        expected[name] = _channel_means(neuron.threshold * outputs[0], samples)
        return outputs

    def correct(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        bias, potential = biases[name], neuron.v_init.expand(currents.shape[1:])
        spikes = torch.empty_like(currents[:1].expand(len(bias), *currents.shape[1:]))
        for t in range(len(bias)):
            current = currents[t if len(currents) > 1 else 0]
            tried, _ = step(potential, current + _as_current(bias[t], current), neuron)
            bias[t] += alpha * (
                expected[name] - _channel_means(neuron.threshold * _without_silent(tried, neuron), samples)
            )
            fired, potential = step(potential, current + _as_current(bias[t], current), neuron)
            spikes[t] = _without_silent(fired, neuron)
        return spikes

    program.propagate(images, remember)
    program.propagate(images, correct)


def _channel_means(values: Tensor, samples: int) -> Tensor:
    """The mean of (batch, channels, ...) over the `samples` of all processes and the positions: (channels,)."""
    total = values.transpose(0, 1).flatten(1).sum(1, dtype=torch.float64)
    summed([total])
    # Of a layer without positions the shape is empty, and the number of its elements is 1.
    return total / (samples * values.shape[2:].numel())


def _as_current(bias: Tensor, current: Tensor) -> Tensor:
    """(channels,) to be added to (batch, channels, ...)."""
    return bias.to(current.dtype).reshape(-1, *[1] * (current.ndim - 2))


def _without_silent(spikes: Tensor, neuron: NeuronTensors) -> Tensor:
    return spikes if neuron.silent is None else spikes.masked_fill(neuron.silent, 0.0)


def _array(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return tensor.cpu().numpy().astype(np.float32)
