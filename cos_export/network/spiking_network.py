"""The network: a NIR graph and, for each spiking node, what NIR itself has no field for."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from types import MappingProxyType
from typing import Any, Literal

import nir
import numpy as np

from cos_export.datasets.normalisation import Normalisation
from cos_export.decisions import class_count
from cos_export.errors import InputError, NetworkError
from cos_export.network.graph import Shape, shapes
from cos_export.network.neuron_spec import NeuronSpec
from cos_export.network.order import predecessors, topological_order
from cos_export.network.quantisation import Quantisation
from cos_export.network.schedule import Schedule, check_schedule
from cos_export.numerics import FLOAT32
from cos_export.whole_number import whole_number

__all__ = ["InputEncoding", "SpikingNetwork", "check_network"]

InputEncoding = Literal["constant", "frames"]


@dataclass(frozen=True)
class SpikingNetwork:
    """A feed-forward network of integrate-and-fire neurons.

    The graph has one Input and one Output. The input is analog and held for all steps (or `input_steps`), every wire
    from a spiking node carries its unit spike, several edges into a node are added, and the readout is
    the mean over the steps of what reaches the Output.

    Networks that are made of each other, as by `calibrate`, share the arrays that they have in common, and with whoever
    gave them: instead of writing into one, make another with `with_neurons` or `with_nodes`.

    Attributes:
        graph: Wiring, weights and synapses.
        neurons: One entry for each `nir.IF` of the graph, by its name.
        num_timesteps: T to run, of the graph and of the bundle, or None.
        method: The calibration method that set the initial potentials.
        rho: Extra steps that the method needs for each input (0 if static).
        quantisation: What its integers stand for, and their widths, if every array holds integers (v_init
            half-integers) in float32; None in a network of float32. `numerics` is derived from it.
        schedule: "synchronous" if every layer fires from the first step on, "layerwise" if each integrates all T steps
            of what feeds it before it fires (`cos_export.network.schedule`).
        input_steps: The steps for which the input is held; afterwards the Input sends zero. None if it is held for all.
        input_encoding: "constant" if a sample is one input that is held, "frames" if it is one for each step: then it
            takes (samples, at least T, ...) and nothing else.
        calibration: The method's record, its name and every option as plain JSON, from which
            `calibration.records.method_of` rebuilds it; None where that is not known.
        calibrated_timesteps: T of the calibration, or None where what was set is made for any T.
        normalisation: The mean and std that its images are normalised with before they reach the Input, or None if
            pixels divided by 255 do, or nobody has said. Raw images (uint8, or a `Dataset`) get it wherever the network
            is run; arrays of a float type are taken to have had it.
        class_names: What the entries of the readout are called, or None if that is not known.
        left_out: What the module does to its logits at its end, such as a softmax, and the network does not.
        readout_shape: The shape of one sample's readout in the module, if the network's is that, flattened.
    """

    graph: nir.NIRGraph
    neurons: Mapping[str, NeuronSpec]
    num_timesteps: int | None = None
    method: str = "half"
    rho: int = 0
    quantisation: Quantisation | None = None
    schedule: Schedule = "synchronous"
    input_steps: int | None = None
    input_encoding: InputEncoding = "constant"
    calibration: Mapping[str, Any] | None = None
    calibrated_timesteps: int | None = None
    normalisation: Normalisation | None = None
    class_names: tuple[str, ...] | None = None
    left_out: tuple[str, ...] = ()
    readout_shape: Shape | None = None

    def __post_init__(self) -> None:
        check_schedule(self.schedule)
        self._check_input_steps()
        object.__setattr__(self, "neurons", MappingProxyType(dict(self.neurons)))
        if self.calibration is not None:
            if self.calibration.get("name") != self.method:
                raise NetworkError(
                    f"The record of the calibration is of {self.calibration.get('name')!r}, and method is "
                    f"{self.method!r}."
                )
            object.__setattr__(self, "calibration", MappingProxyType(dict(self.calibration)))
        for kind in (nir.Input, nir.Output):
            names = [name for name, node in self.graph.nodes.items() if isinstance(node, kind)]
            if len(names) != 1:
                listed = ", ".join(map(repr, names))
                raise NetworkError(f"A network has one {kind.__name__} node; this graph has {len(names)} ({listed}).")
        spiking = {name for name, node in self.graph.nodes.items() if isinstance(node, nir.IF)}
        if spiking != set(self.neurons):
            raise NetworkError(
                f"The graph's IF nodes and the neuron specs differ: {sorted(spiking ^ set(self.neurons))}."
            )
        for name, spec in self.neurons.items():
            if not isinstance(spec, NeuronSpec):
                raise NetworkError(f"Node {name!r} has {type(spec).__name__} for its neurons, and not a NeuronSpec.")
            if spec.shape != self.shapes[name]:
                raise NetworkError(f"Node {name!r} has shape {self.shapes[name]}, and its neurons {spec.shape}.")
            if not np.all(np.asarray(self.graph.nodes[name].r) == 1):
                raise NetworkError(
                    f"Node {name!r} (IF): r must be 1. Divide its threshold and potentials by r for the same spikes."
                )
        self._check_ends()

    def _check_input_steps(self) -> None:
        if self.input_encoding not in ("constant", "frames"):
            raise NetworkError(f'input_encoding must be "constant" or "frames", and is {self.input_encoding!r}.')
        if self.input_encoding == "frames" and self.input_steps is not None:
            raise NetworkError("input_steps says for how long an input is held, and frames are not held.")
        if self.input_steps is None:
            return
        whole_number("input_steps", self.input_steps, 1)
        if self.schedule == "layerwise":
            raise NetworkError(
                "Under the layer-wise schedule the input is held for the T steps of the first window: input_steps must "
                "be None."
            )

    def _check_ends(self) -> None:
        """What is said of the images and of the classes must fit the Input and the Output."""
        channels, names = self.input_shape[0], self.class_names
        for name, values in ({} if self.normalisation is None else self.normalisation.to_dict()).items():
            if len(values) not in (1, channels):
                raise NetworkError(f"There are {len(values)} values of {name}, and the Input has {channels} channels.")
        if names is not None and (len(self.output_shape), class_count(self.output_shape[-1])) != (1, len(names)):
            raise NetworkError(f"There are {len(names)} class names, and the readout has shape {self.output_shape}.")
        if self.readout_shape is not None and self.output_shape != (prod(self.readout_shape),):
            raise NetworkError(f"A readout {self.readout_shape} cannot be the flattened one of {self.output_shape}.")

    @cached_property
    def order(self) -> tuple[str, ...]:
        """All nodes in topological order."""
        return topological_order(self.graph)

    @cached_property
    def predecessors(self) -> Mapping[str, tuple[str, ...]]:
        """The nodes that feed each node."""
        return predecessors(self.graph)

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """The output shape of each node."""
        return shapes(self.graph, self.order, self.predecessors)

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The spiking nodes in topological order."""
        return tuple(name for name in self.order if name in self.neurons)

    @cached_property
    def input_name(self) -> str:
        """The Input node."""
        return next(name for name in self.order if isinstance(self.graph.nodes[name], nir.Input))

    @cached_property
    def output_name(self) -> str:
        """The Output node."""
        return next(name for name in self.order if isinstance(self.graph.nodes[name], nir.Output))

    @cached_property
    def layers_read_out(self) -> frozenset[str]:
        """The spiking nodes that reach the Output without neurons between."""
        layers: set[str] = set()
        waiting = list(self.predecessors[self.output_name])
        while waiting:
            name = waiting.pop()
            if name in self.neurons:
                layers.add(name)
            else:
                waiting += self.predecessors[name]
        return frozenset(layers)

    @property
    def input_shape(self) -> Shape:
        """The shape of one input sample."""
        return self.shapes[self.input_name]

    @property
    def output_shape(self) -> Shape:
        """The shape of the readout for one sample."""
        return self.shapes[self.output_name]

    @property
    def numerics(self) -> str:
        """What it is computed in: "float32", or "int8" after the width of its weights."""
        return FLOAT32 if self.quantisation is None else self.quantisation.numerics

    @property
    def readout_scale(self) -> float:
        """What 1 stands for at the Output: 1 unless the network is one of integers."""
        return 1.0 if self.quantisation is None else self.quantisation.readout_scale

    @property
    def neuron_count(self) -> int:
        """The number of spiking neurons."""
        return sum(int(np.prod(spec.shape)) for spec in self.neurons.values())

    def with_neurons(self, neurons: Mapping[str, NeuronSpec]) -> SpikingNetwork:
        """The same graph with some layers' neurons replaced."""
        return replace(self, neurons={**self.neurons, **neurons})

    def with_nodes(self, nodes: Mapping[str, nir.NIRNode]) -> SpikingNetwork:
        """The same wiring and neurons with some nodes of the graph replaced; this network's graph stays as it is."""
        graph = copy.copy(self.graph)
        graph.nodes = {**self.graph.nodes, **nodes}
        return replace(self, graph=graph)


def check_network(network: object) -> None:
    """Refuses what is not a network of spiking neurons yet, or is a bundle of one.

    Raises:
        InputError: The message says what it is, and how a network is made of it.
    """
    if isinstance(network, SpikingNetwork):
        return
    kind = type(network).__name__
    if hasattr(network, "state_dict"):
        reason = f"a module, {kind}: capture it first, network = cos_export.capture(model, example)"
    elif hasattr(network, "manifest"):
        reason = "a bundle: give bundle.network"
    elif isinstance(network, nir.NIRGraph):
        reason = "a NIR graph: write it to a file and read that with cos_export.read_nir(path)"
    else:
        reason = f"a {kind}: cos_export.capture, cos_export.read_nir and cos_export.load(path).network make one"
    raise InputError(f"The network must be a SpikingNetwork, and is {reason}.")
