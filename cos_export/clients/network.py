"""Runs a graph of a client's neurons, both schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from cos_export.clients.neurons.layer import Neurons, tensor
from cos_export.clients.nir_graph import InputIntegers, Layer, NirGraph
from cos_export.clients.synapses import synapse
from cos_export.errors import InputError

__all__ = ["ClientNetwork", "SpikingLayer"]


class SpikingLayer(nn.Module):
    """A layer of a client's neurons, with what no client has: its initial potential, beta and the silent ones.

    Args:
        layer: What the file says of it.
        neurons: Of the client.
    """

    v_init: Tensor
    bias: Tensor | None
    audible: Tensor | None

    def __init__(self, layer: Layer, neurons: Neurons) -> None:
        super().__init__()
        self.neurons = neurons
        self.register_buffer("v_init", tensor(layer.v_init))
        self.register_buffer("bias", None if layer.bias is None else tensor(layer.bias))
        self.register_buffer("audible", None if layer.silent is None else tensor(~layer.silent))
        self._audible = self.audible

    def start(self, batch: int, v_init: Tensor | None = None, silent: Tensor | None = None) -> None:
        """Starts a batch, from what each sample has of its own or else from what the file says.

        Args:
            batch: Samples.
            v_init: v(0), (batch, ...).
            silent: Which neurons are silent, (batch, ...).
        """
        held = self.v_init.expand(batch, *self.v_init.shape) if v_init is None else v_init
        self.neurons.start(held.to(self.v_init).clone())
        self._audible = self.audible if silent is None else silent.to(self.v_init.device).logical_not().to(self.v_init)

    def forward(self, current: Tensor, beta: Tensor | None = None) -> Tensor:
        """One step.

        Args:
            current: I(t), (batch, ...).
            beta: beta(t), (channels,).
        """
        if beta is not None:
            current = current + beta.reshape(-1, *[1] * (current.ndim - 2))
        spikes: Tensor = self.neurons(current)
        return spikes if self._audible is None else spikes * self._audible

    def beta(self, t: int) -> Tensor | None:
        """Beta in the step with index t = 0, 1, ..., (channels,)."""
        return None if self.bias is None or t >= len(self.bias) else self.bias[t]

    def beta_of_window(self, steps: int) -> Tensor | None:
        """The sum of beta over the first `steps` steps."""
        return None if self.bias is None else self.bias[:steps].double().sum(0).to(self.bias.dtype)


class ClientNetwork(nn.Module):
    """A network of a client's neurons: what `cos_export.clients.load` returns.

    Args:
        graph: The network.
        neurons: Makes the client's neurons of a layer.

    Attributes:
        graph: The network as the file has it.
        spikes: Of the last run, by layer, (steps, batch, ...) of booleans.
    """

    def __init__(self, graph: NirGraph, neurons: Callable[[Layer], Neurons]) -> None:
        super().__init__()
        self.graph = graph
        self.spikes: dict[str, Tensor] = {}
        # torch has names of its own for modules: no dots, and none that a module's attributes have.
        self._keys = {name: f"{number}_{name.replace('.', '_')}" for number, name in enumerate(graph.order)}
        self.nodes = nn.ModuleDict({key: self._module(name, neurons) for name, key in self._keys.items()})
        self._steady = self._fed_by_the_input_alone()
        self._read_out = self._after_the_last_neurons()

    def _module(self, name: str, neurons: Callable[[Layer], Neurons]) -> nn.Module:
        if name in self.graph.layers:
            layer = self.graph.layers[name]
            return SpikingLayer(layer, neurons(layer))
        return synapse(name, self.graph.nodes[name])

    def forward(
        self,
        images: Tensor,
        steps: int | None = None,
        *,
        v_init: Mapping[str, Tensor] | None = None,
        silent: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Runs a batch from its initial potentials and takes the mean of what is read out.

        Args as for `run`.

        Returns:
            The logits, (steps, batch, classes): entry t - 1 is the mean readout of the first t steps.

        Raises:
            InputError: The images or steps do not fit.
        """
        return mean_readout(self.run(images, steps, v_init=v_init, silent=silent), self.graph.readout_scale)

    def run(
        self,
        images: Tensor,
        steps: int | None = None,
        *,
        v_init: Mapping[str, Tensor] | None = None,
        silent: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Runs a batch from its initial potentials.

        Args:
            images: (batch, ...), each held as the file says; or, where its input is frames, (batch, steps, ...).
            steps: T; by default what the file was made for.
            v_init: By layer, the initial potentials of each sample, (batch, ...), in place of the file's.
            silent: By layer, which neurons of each sample are silent, likewise.

        Returns:
            What reaches the Output in each step, (steps, batch, classes), in the unit of the graph.

        Raises:
            InputError: The images or steps do not fit.
        """
        steps = self._steps(steps)
        self._check(images, steps)
        if self.graph.integers is not None:
            images = rounded(images, self.graph.integers)
        for name, layer in self._layers():
            layer.start(len(images), (v_init or {}).get(name), (silent or {}).get(name))
        run = self._layer_after_layer if self.graph.layerwise else self._step_after_step
        trains, outputs = run(images, steps)
        self.spikes = {name: torch.stack(trains[name]).bool() for name in self.graph.layers}
        return torch.stack(outputs)

    def _steps(self, steps: int | None) -> int:
        steps = self.graph.steps if steps is None else steps
        if steps is None or steps < 1:
            raise InputError("The file does not say for how many steps it was made: give steps=, at least 1.")
        return steps

    def _check(self, images: Tensor, steps: int) -> None:
        frames = self.graph.encoding.frames
        shape = tuple(images.shape[2:] if frames else images.shape[1:])
        if shape != self.graph.input_shape or not images.is_floating_point():
            expected = ("batch", "steps") if frames else ("batch",)
            sizes = ", ".join(map(str, (*expected, *self.graph.input_shape)))
            raise InputError(f"images must be floats ({sizes}), and are {images.dtype} {tuple(images.shape)}.")
        if frames and images.shape[1] < steps:
            raise InputError(f"There are {images.shape[1]} frames for {steps} steps.")

    def _layers(self) -> Iterator[tuple[str, SpikingLayer]]:
        for name in self.graph.layers:
            module = self.nodes[self._keys[name]]
            if isinstance(module, SpikingLayer):
                yield name, module

    def _sent(self, images: Tensor, t: int) -> Tensor:
        """What the Input sends in the step with index t."""
        encoding = self.graph.encoding
        if encoding.frames:
            return images[:, t]
        return images if encoding.held is None or t < encoding.held else torch.zeros_like(images)

    def _arriving(self, name: str, wires: Mapping[str, Tensor]) -> Tensor:
        first, *others = self.graph.sources[name]
        total = wires[first]
        for source in others:
            total = total + wires[source]
        return total

    def _step_after_step(self, images: Tensor, steps: int) -> tuple[dict[str, list[Tensor]], list[Tensor]]:
        """Every layer fires from the first step on."""
        trains: dict[str, list[Tensor]] = {name: [] for name in self.graph.layers}
        outputs, wires = [], dict[str, Tensor]()
        for t in range(steps):
            changed = t == 0 or self.graph.encoding.frames or t == self.graph.encoding.held
            for name in self.graph.order:
                if name in self._steady and not changed:
                    continue
                module = self.nodes[self._keys[name]]
                current = self._arriving(name, wires) if self.graph.sources[name] else self._sent(images, t)
                if isinstance(module, SpikingLayer):
                    wires[name] = module(current, module.beta(t))
                    trains[name].append(wires[name])
                else:
                    wires[name] = module(current)
            outputs.append(wires[self.graph.output])
        return trains, outputs

    def _layer_after_layer(self, images: Tensor, steps: int) -> tuple[dict[str, list[Tensor]], list[Tensor]]:
        """A layer takes what arrives in all its steps at once, and then fires in as many.

        Synapses are linear, so that one pass of each serves the sum of all steps, with its bias so many times.
        """
        trains: dict[str, list[Tensor]] = {}
        totals: dict[str, Tensor] = {}
        for name in self.graph.order:
            module = self.nodes[self._keys[name]]
            if not self.graph.sources[name]:
                totals[name] = images[:, :steps].sum(1) if self.graph.encoding.frames else images * float(steps)
                continue
            current = self._arriving(name, totals)
            if isinstance(module, SpikingLayer):
                nothing = torch.zeros_like(current)
                first = module(current, module.beta_of_window(steps))
                trains[name] = [first, *[module(nothing) for _ in range(steps - 1)]]
                totals[name] = torch.stack(trains[name]).sum(0)
            else:
                totals[name] = _with_bias_times(module, steps, current)
        return trains, [self._readout(images, trains, t) for t in range(steps)]

    def _readout(self, images: Tensor, trains: Mapping[str, list[Tensor]], t: int) -> Tensor:
        """What reaches the Output in a step of its window: the spikes of that step of each layer's window."""
        wires = {name: train[t] for name, train in trains.items()}
        for name in self.graph.order:
            if name in self._read_out:
                sources = self.graph.sources[name]
                current = self._arriving(name, wires) if sources else self._sent(images, t)
                wires[name] = self.nodes[self._keys[name]](current)
        return wires[self.graph.output]

    def _fed_by_the_input_alone(self) -> frozenset[str]:
        """The nodes that no neuron lies in front of, and the Input."""
        steady: set[str] = set()
        for name in self.graph.order:
            if name not in self.graph.layers and all(source in steady for source in self.graph.sources[name]):
                steady.add(name)
        return frozenset(steady)

    def _after_the_last_neurons(self) -> frozenset[str]:
        """The nodes that the Output is reached from without another neuron."""
        found, waiting = set[str](), [self.graph.output]
        while waiting:
            name = waiting.pop()
            if name not in self.graph.layers and name not in found:
                found.add(name)
                waiting += self.graph.sources[name]
        return frozenset(found)


def _with_bias_times(module: nn.Module, steps: int, values: Tensor) -> Tensor:
    """What a synapse makes of the sum of `steps` inputs."""
    bias = getattr(module, "bias", None)
    changed = {} if bias is None else {"bias": bias * float(steps)}
    result: Tensor = torch.func.functional_call(module, changed, values)
    return result


def rounded(images: Tensor, integers: InputIntegers) -> Tensor:
    """The integers that a network of integers takes."""
    gain = float(np.float32(1.0 / integers.scale))
    return torch.round(images.to(torch.float32) * gain).clamp_(integers.minimum, integers.maximum)


def mean_readout(outputs: Tensor, scale: float | None) -> Tensor:
    """The mean of the first t outputs for t = 1..steps: (steps, batch, classes).

    Of integers the sum is exact, and one product with float32(scale / t) makes logits of it.
    """
    steps = torch.arange(1, len(outputs) + 1, device=outputs.device, dtype=torch.float64)
    steps, sums = steps.reshape(-1, *[1] * (outputs.ndim - 1)), outputs.cumsum(0)
    return sums / steps.to(sums.dtype) if scale is None else sums * (scale / steps).to(sums.dtype)
