"""What a calibration by gradient may tune: parameters that start from zero, and the network that comes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from calibration.tuning.counts import differentiable_counts
from calibration.tuning.surrogate import differentiable_train
from cos_export.network import FloatArray, NeuronSpec, SpikingNetwork
from cos_export.network.graph import Convolution, with_attributes
from cos_export.network.node_facts import facts, weight_field
from cos_export.network.wiring import is_wiring
from cos_export.simulation.neuron import NeuronTensors, channels_last
from cos_export.simulation.program import Program
from cos_export.simulation.synapses import is_multiple

__all__ = ["Parameter", "Tuned", "Tuning"]

Tuned = Literal["potential", "threshold", "bias", "weight"]

_RATES = {"threshold": 0.2, "bias": 0.2, "weight": 1.0, "current": 0.4}
"""How fast each kind moves, beside a potential at T = 1: many neurons pull at the parameters of a channel.

A potential moves the slower the more steps there are, for what it shifts at first is divided by T in the end.
"""


@dataclass(frozen=True)
class Parameter:
    """One tensor that is tuned.

    Attributes:
        values: What Adam moves, in the unit of what it is added to.
        rate: Its learning rate, in units of that of a potential at T = 1.
    """

    values: Tensor
    rate: float


class Tuning:
    """The parameters of one calibration, all of them zero at first.

    With v_0, theta_0, beta_0(t), W_0 and c_0 what neurons and synapses (weights, constant current) were before,

        v_init = v_0 + theta_0 p                    p: one for each neuron              "potential"
        theta  = theta_0 exp(g)                     g: one for each channel             "threshold"
        beta(t) = beta_0(t) + theta_0 b(t)          b: one for each channel and step    "bias"
        W      = W_0 + r w,  c = c_0 + r sqrt(n) d  w, d: of the synapse's own shapes   "weight"

    with r the root mean square of W_0 and n the inputs that one output of it sums up. A synapse that carries its input
    on times one number, as a residual's identity path does, stays as it is, and so does what compares entries for a max
    pooling.

    Args:
        program: The network as it is, on its device.
        tune: What is tuned.
        steps: T.
        compiled: Whether `torch.compile` fuses what each layer's neurons compute.
    """

    def __init__(self, program: Program, tune: Iterable[Tuned], steps: int, *, compiled: bool = False) -> None:
        tune = tuple(tune)
        self._program, self._steps, self._compiled = program, steps, compiled
        self._layers = {name: _of_neurons(program.neurons[name], tune, steps) for name in program.network.layers}
        self._biases = {name: _bias(program, name, steps) for name in program.network.layers}
        self._units = _units(program) if "weight" in tune else {}
        self.parameters: dict[str, Parameter] = {}
        for name, tensors in self._layers.items():
            for kind, values in tensors.items():
                self.parameters[f"{name}/{kind}"] = Parameter(values, _RATES.get(kind, 1.0 / steps))
        for name, units in self._units.items():
            for key, (start, _) in units.items():
                kind = "weight" if key == weight_field(program.network.graph.nodes[name]) else "current"
                self.parameters[f"{name}/{key}"] = Parameter(torch.zeros_like(start), _RATES[kind])
        for parameter in self.parameters.values():
            parameter.values.requires_grad_(True)

    def put(self, values: Mapping[str, Tensor]) -> None:
        """Sets the parameters to other values."""
        with torch.no_grad():
            for key, parameter in self.parameters.items():
                parameter.values.copy_(values[key])

    def program(self) -> Program:
        """The network with its synapses as they are now, which gradients pass through."""
        arrays = {name: self._arrays(name) for name in self._units}
        return self._program.with_arrays(arrays) if arrays else self._program

    def train(self, name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        """What a layer sends with its parameters as they are now, with gradients: a `NeuronRule`.

        The spikes of each step, (T, batch, ...); their number, (1, batch, ...), under the layer-wise schedule.
        """
        tensors, theta = self._layers[name], neuron.threshold
        v_init, threshold = neuron.v_init, theta
        if "potential" in tensors:
            v_init = v_init + theta * tensors["potential"]
        if "threshold" in tensors:
            threshold = theta * tensors["threshold"].exp()
        bias = self._bias(name, theta)
        if self._program.network.schedule == "layerwise":
            return differentiable_counts(currents, self._steps, v_init, threshold, bias)
        # Each shape is compiled anew, which pays for batches of one size that come again and again: those of updates.
        compiled = self._compiled and torch.is_grad_enabled()
        return differentiable_train(currents, self._steps, v_init, threshold, bias, compiled=compiled)

    def applied(self) -> SpikingNetwork:
        """The network with all parameters as they are now."""
        network = self._program.network
        with torch.no_grad():
            neurons = {name: self._neurons(name, spec) for name, spec in network.neurons.items()}
            nodes = {}
            for name in self._units:
                arrays = {key: _array(value) for key, value in self._arrays(name).items()}
                nodes[name] = with_attributes(network.graph.nodes[name], **arrays)
        tuned = network.with_neurons(neurons)
        return tuned.with_nodes(nodes) if nodes else tuned

    def _arrays(self, name: str) -> dict[str, Tensor]:
        return {
            key: torch.add(start, self.parameters[f"{name}/{key}"].values, alpha=unit)
            for key, (start, unit) in self._units[name].items()
        }

    def _neurons(self, name: str, spec: NeuronSpec) -> NeuronSpec:
        tensors, neuron = self._layers[name], self._program.neurons[name]
        theta = neuron.threshold
        if "potential" in tensors:
            spec = replace(spec, v_init=_array(neuron.v_init + theta * tensors["potential"]))
        if "threshold" in tensors:
            scaled = theta * tensors["threshold"].exp()
            spec = replace(spec, threshold=_array(scaled.expand(neuron.v_init.shape)))
        bias = self._bias(name, theta)
        if "bias" in tensors and bias is not None:
            spec = replace(spec, bias=_array(bias.flatten(1)))
        return spec

    def _bias(self, name: str, theta: Tensor) -> Tensor | None:
        """beta(t) as it is now, (steps, 1, channels, 1, ...)."""
        before, tuned = self._biases[name], self._layers[name].get("bias")
        if tuned is None:
            return before
        change = _per_channel(theta) * tuned
        return change if before is None else before + change


def _of_neurons(neuron: NeuronTensors, tune: tuple[Tuned, ...], steps: int) -> dict[str, Tensor]:
    """What is tuned of one layer, by kind."""
    shape = neuron.v_init.shape
    sizes = {
        "potential": shape,
        "threshold": (shape[0], *[1] * (len(shape) - 1)),
        "bias": (steps, 1, shape[0], *[1] * (len(shape) - 1)),
    }
    return {
        kind: channels_last(torch.zeros(size, dtype=neuron.v_init.dtype, device=neuron.v_init.device))
        for kind, size in sizes.items()
        if kind in tune
    }


def _bias(program: Program, name: str, steps: int) -> Tensor | None:
    """beta_0, (steps, 1, channels, 1, ...)."""
    table = program.network.neurons[name].bias_per_step(steps)
    return None if table is None else torch.from_numpy(table).to(program.device, program.dtype).unsqueeze(1)


def _units(program: Program) -> dict[str, dict[str, tuple[Tensor, float]]]:
    """The arrays of each synapse that can be tuned, with the size of what may be added to them."""
    tunable = {}
    for name, node in program.network.graph.nodes.items():
        known = facts(node)
        if known.weights is None or is_wiring(node):
            continue
        weight = torch.as_tensor(np.asarray(getattr(node, known.weights))).to(program.device, program.dtype)
        weight = weight.contiguous(memory_format=torch.channels_last) if weight.ndim == 4 else weight
        size = float(weight.square().mean().sqrt())
        arrays = {known.weights: (weight, size)}
        if known.bias is not None:
            current = torch.as_tensor(np.asarray(getattr(node, known.bias))).to(program.device, program.dtype)
            arrays[known.bias] = (current, size * known.terms**0.5)
            if isinstance(known.geometry, Convolution) and is_multiple(weight, current, known.geometry):
                continue
        if size > 0:
            tunable[name] = arrays
    return tunable


def _per_channel(threshold: Tensor) -> Tensor:
    """The unit of a layer's biases: its threshold, or the mean threshold of each channel."""
    return threshold if threshold.ndim < 2 else threshold.flatten(1).mean(1).reshape(-1, *[1] * (threshold.ndim - 1))


def _array(tensor: Tensor) -> FloatArray:
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), np.float32)
