"""The network: a NIR graph and, for each spiking node, what NIR itself has no field for."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import nir
import numpy as np
from numpy.typing import NDArray

from cos_export.datasets.normalisation import Normalisation
from cos_export.errors import InputError, NetworkError
from cos_export.network.fields import numbers
from cos_export.network.graph import Shape, predecessors, shapes, topological_order
from cos_export.network.schedule import Schedule, check_schedule
from cos_export.whole_number import whole_number

__all__ = [
    "FloatArray",
    "NeuronSpec",
    "Quantisation",
    "SampleStates",
    "SpikingNetwork",
    "check_network",
    "half_potentials",
]

FloatArray = NDArray[np.float32]

_RESETS = ("subtract", "value")


@dataclass(frozen=True)
class NeuronSpec:
    """A layer of integrate-and-fire neurons.

    For step t = 1..T and each neuron, with threshold theta:

        m(t) = v(t-1) + I(t) + beta(t)      charge
        s(t) = 1 if m(t) >= theta else 0    fire
        v(t) = m(t) - theta * s(t)          soft reset
        v(0) = v_init

    A graph from another tool may ask for `condition` ">" and for `reset` "value", which puts
    v(t) = v_reset where s(t) = 1: NIR's own meaning.

    Attributes:
        threshold: theta > 0, shape (channels, height, width) or (features,), in the unit of the current.
        v_init: v(0), of threshold's shape and unit.
        condition: Whether a neuron at its threshold fires (">=") or not (">").
        reset: "subtract" or "value".
        v_reset: What a neuron is reset to if reset is "value", of threshold's shape.
        bias: beta, shape (steps, channels) with the threshold's first axis as channels, or None for
            zero. Steps past its end have beta = 0.
        silent: True where a neuron's spikes are dropped while its potential goes on, or None.
        levels: L of the quantised activation that this layer stands for, or None if that was a
            clipped ReLU. No run of spikes needs it: it says what the layer should converge to.
        scale: What 1 stands for in a network of integers, one number for each channel, or None. No run needs it.
    """

    threshold: FloatArray
    v_init: FloatArray
    condition: Literal[">=", ">"] = ">="
    reset: Literal["subtract", "value"] = "subtract"
    v_reset: FloatArray | None = None
    bias: FloatArray | None = None
    silent: NDArray[np.bool_] | None = None
    levels: int | None = None
    scale: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.threshold)
        if not shape:
            raise NetworkError("threshold must have an axis: (channels, height, width) or (features,).")
        for name in ("threshold", "v_init", "v_reset", "bias", "scale"):
            if getattr(self, name) is not None:
                numbers(name, getattr(self, name))
        if not np.all(np.asarray(self.threshold, np.float32) > 0):
            raise NetworkError("A threshold must be a positive number, also in float32.")
        if self.scale is not None and not np.all(np.asarray(self.scale) > 0):
            raise NetworkError("scale must be a positive number.")
        if self.reset == "value" and self.v_reset is None:
            raise NetworkError('reset "value" needs v_reset.')
        for name in ("v_init", "v_reset", "silent"):
            value = getattr(self, name)
            if value is not None and np.shape(value) != shape:
                raise NetworkError(f"{name} has shape {np.shape(value)}, and threshold {shape}: they must be equal.")
        if self.bias is not None and (np.ndim(self.bias) != 2 or np.shape(self.bias)[1] != shape[0]):
            raise NetworkError(f"bias must be (steps, {shape[0]}), and has shape {np.shape(self.bias)}.")
        if self.levels is not None and (not isinstance(self.levels, int | np.integer) or self.levels < 1):
            raise NetworkError(f"levels must be at least 1 and whole, and is {self.levels!r}.")
        if self.silent is not None and not np.isin(numbers("silent", self.silent), (0, 1)).all():
            raise NetworkError("silent must hold booleans.")
        for name, value, known in (("condition", self.condition, (">=", ">")), ("reset", self.reset, _RESETS)):
            if value not in known:
                raise NetworkError(f"{name} must be {' or '.join(map(repr, known))}, and is {value!r}.")
        if self.scale is not None and np.shape(self.scale) != shape[:1]:
            raise NetworkError(f"scale must be ({shape[0]},), and has shape {np.shape(self.scale)}.")

    @property
    def shape(self) -> Shape:
        """(channels, height, width) or (features,)."""
        return tuple(np.shape(self.threshold))

    def bias_per_step(self, steps: int) -> FloatArray | None:
        """The bias for steps 1..`steps`, shape (steps, channels, 1, ...) to be added to a current."""
        if self.bias is None:
            return None
        table = np.zeros((steps, self.bias.shape[1]), np.float32)
        known = min(steps, len(self.bias))
        table[:known] = self.bias[:known]
        return table.reshape(steps, -1, *[1] * (len(self.shape) - 1))

    def bias_over_window(self, steps: int) -> FloatArray | None:
        """The sum of the bias over steps 1..`steps`, shape (channels, 1, ...) to be added to a sum of currents."""
        if self.bias is None:
            return None
        total = self.bias[:steps].sum(0, dtype=np.float64).astype(np.float32)
        return np.asarray(total.reshape(-1, *[1] * (len(self.shape) - 1)))


def half_potentials(spec: NeuronSpec) -> NeuronSpec:
    """The layer with v_init = theta / 2 (QCFS, Bu et al., ICLR 2022)."""
    return replace(spec, v_init=(spec.threshold / np.float32(2)).astype(np.float32))


@dataclass(frozen=True)
class SampleStates:
    """What a per-sample method sets beside the graph, one entry for each sample of a batch.

    Attributes:
        v_init: Initial potentials by layer, (batch, ...), in place of the layer's own.
        silent: Neurons whose spikes are dropped by layer, (batch, ...), in place of the layer's own.
    """

    v_init: Mapping[str, FloatArray] = field(default_factory=dict)
    silent: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def part(self, samples: slice) -> SampleStates:
        """The states of some of the samples."""
        return SampleStates(
            v_init={name: value[samples] for name, value in self.v_init.items()},
            silent={name: value[samples] for name, value in self.silent.items()},
        )


@dataclass(frozen=True)
class Quantisation:
    """What the integers at the two ends of a network in fixed point stand for (docs/numerics.md).

    The images become 8-bit integers x, rounded half to even, and what reaches the Output becomes logits:

        x = clip(round(image * float32(1 / input_scale)), input_minimum, input_maximum)
        logits(t) = readout_scale * (1 / t) * (sum over the first t steps of what reaches the Output)

    Attributes:
        input_scale: What 1 stands for in x.
        input_minimum: The least x, -128 or more.
        input_maximum: The largest x; 255 at most, and 127 if x may be negative.
        readout_scale: What 1 stands for at the Output.
    """

    input_scale: float
    input_minimum: int = -127
    input_maximum: int = 127
    readout_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("input_scale", "readout_scale"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0 and float(np.float32(value)) == value):
                raise NetworkError(f"{name} must be a positive float32 number, and is {value!r}.")
        low, high = self.input_minimum, self.input_maximum
        if not low <= 0 < high or high - low > 255 or low < -128 or (low < 0 and high > 127):
            raise NetworkError(f"An 8-bit input lies in -128..127 or 0..255, not in {low}..{high}.")


@dataclass(frozen=True)
class SpikingNetwork:
    """A feed-forward network of integrate-and-fire neurons.

    The graph has one Input and one Output. The input is analog and held for all steps (or `input_steps`), every wire
    from a spiking node carries its unit spike, several edges into a node are added, and the readout is
    the mean over the steps of what reaches the Output.

    Attributes:
        graph: Wiring, weights and synapses.
        neurons: One entry for each `nir.IF` of the graph, by its name.
        num_timesteps: T to run, of the graph and of the bundle, or None.
        method: The calibration method that set the initial potentials.
        rho: Extra steps that the method needs for each input (0 if static).
        numerics: "float32", or "int8" where every array holds integers (v_init half-integers) in float32.
        quantisation: What the integers stand for, in a network of numerics "int8" and only there.
        schedule: "synchronous" if every layer fires from the first step on, "layerwise" if each integrates all T steps
            of what feeds it before it fires (`cos_export.network.schedule`).
        input_steps: The steps for which the input is held; afterwards the Input sends zero. None if it is held for all.
        calibration: The method's record, its name and every option as plain JSON, from which
            `calibration.records.method_of` rebuilds it; None where that is not known.
        calibrated_timesteps: T of the calibration, or None where what was set is made for any T.
        normalisation: The mean and std that its images are normalised with before they reach the Input, or None if
            pixels divided by 255 do, or nobody has said. Raw images (uint8, or a `Dataset`) get it wherever the network
            is run; arrays of a float type are taken to have had it.
        class_names: What the entries of the readout are called, or None if that is not known.
    """

    graph: nir.NIRGraph
    neurons: Mapping[str, NeuronSpec]
    num_timesteps: int | None = None
    method: str = "half"
    rho: int = 0
    numerics: Literal["float32", "int8"] = "float32"
    quantisation: Quantisation | None = None
    schedule: Schedule = "synchronous"
    input_steps: int | None = None
    calibration: Mapping[str, Any] | None = None
    calibrated_timesteps: int | None = None
    normalisation: Normalisation | None = None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_schedule(self.schedule)
        self._check_input_steps()
        if (self.numerics == "int8") != (self.quantisation is not None):
            raise NetworkError('A network of numerics "int8" has a quantisation, and no other network has one.')
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
        if names is not None and self.output_shape != (len(names),):
            raise NetworkError(f"There are {len(names)} class names, and the readout has shape {self.output_shape}.")

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
        found: set[str] = set()
        waiting = list(self.predecessors[self.output_name])
        while waiting:
            name = waiting.pop()
            if name in self.neurons:
                found.add(name)
            else:
                waiting += self.predecessors[name]
        return frozenset(found)

    @property
    def input_shape(self) -> Shape:
        """The shape of one input sample."""
        return self.shapes[self.input_name]

    @property
    def output_shape(self) -> Shape:
        """The shape of the readout for one sample."""
        return self.shapes[self.output_name]

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
