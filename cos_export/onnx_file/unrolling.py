"""A network over its steps in ONNX, every layer step by step, after a pre-simulation if its method asks for one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cos_export.network import SpikingNetwork
from cos_export.network.windows import over_window
from cos_export.network.wires import Wires
from cos_export.onnx_file.builder import GraphBuilder
from cos_export.onnx_file.neurons import Audible, LayerValues, NeuronNodes, audible_of, silencer
from cos_export.onnx_file.presimulation import corrected_start, half_start, silent_by_residual
from cos_export.onnx_file.synapses import Synapse, synapse
from cos_export.simulation.presimulation import OffsetCorrection, PreSimulationRule, ResidualSilencing

__all__ = ["IMAGES", "Unrolled", "all_at_once", "input_values", "node_synapse", "step_name", "summed"]

IMAGES = "images"

Unrolled = tuple[tuple[str, ...], dict[str, tuple[str, ...]]]
"""What reaches the Output, for each step or once for all; and by layer the spikes of each step, still to be joined."""


def all_at_once(
    builder: GraphBuilder,
    network: SpikingNetwork,
    images: str,
    steps: int,
    presimulation: PreSimulationRule | None = None,
) -> Unrolled:
    """Every layer step by step.

    Args:
        builder: The graph.
        network: What is unrolled.
        images: The name of what the Input sends.
        steps: T.
        presimulation: What a per-sample method makes of extra steps before the run.
    """
    if isinstance(presimulation, OffsetCorrection):
        return _corrected(builder, network, images, steps, presimulation)
    if isinstance(presimulation, ResidualSilencing):
        return _silenced(builder, network, images, steps, presimulation)

    def rule(nodes: NeuronNodes, currents: tuple[str, ...]) -> LayerValues:
        start = nodes.own_start(f"v_init/{nodes.name}", reserved=True)
        return nodes.run(start, currents, steps, silencer(builder, nodes.name, nodes.spec))

    return _Walk(builder, network, images, steps).run(rule, steps, steps)


def _corrected(
    builder: GraphBuilder, network: SpikingNetwork, images: str, steps: int, correction: OffsetCorrection
) -> Unrolled:
    """Each layer pre-simulated on the spikes of the corrected one below, which runs as many steps as that needs."""
    horizon = max(steps, correction.rho)

    def rule(nodes: NeuronNodes, currents: tuple[str, ...]) -> LayerValues:
        start = corrected_start(nodes, currents, correction, network.quantisation)
        return nodes.run(start, currents, horizon, silencer(builder, nodes.name, nodes.spec))

    return _Walk(builder, network, images, horizon).run(rule, horizon, steps)


def _silenced(
    builder: GraphBuilder, network: SpikingNetwork, images: str, steps: int, silencing: ResidualSilencing
) -> Unrolled:
    """The whole network for tau steps, and then again for T without what was found."""
    walk = _Walk(builder, network, images, max(steps, silencing.tau))
    starts: dict[str, str] = {}
    audible: dict[str, Audible] = {}

    def presimulate(nodes: NeuronNodes, currents: tuple[str, ...]) -> LayerValues:
        half, start = half_start(nodes.spec, network.quantisation)
        starts[nodes.name] = builder.constant(f"v_init/{nodes.name}", start, reserved=True)
        before = starts[nodes.name] if network.quantisation is None else builder.constant(f"{nodes.name}/before", half)
        spikes, residual = nodes.residual(before, currents, silencing.tau, f"{nodes.name}/pre")
        audible[nodes.name] = audible_of(builder, nodes.name, silent_by_residual(nodes, residual))
        return LayerValues(spikes, ())

    def rule(nodes: NeuronNodes, currents: tuple[str, ...]) -> LayerValues:
        return nodes.run(starts[nodes.name], currents, steps, audible[nodes.name])

    walk.run(presimulate, silencing.tau, 0, "pre/")
    return walk.run(rule, steps, steps)


_Rule = Callable[[NeuronNodes, tuple[str, ...]], LayerValues]
"""(a layer, its currents in each step or once for all) -> what leaves it."""


class _Walk:
    """A network whose nodes may be walked more than once: its weights are in the graph once.

    Args:
        builder: The graph.
        network: What is walked.
        images: The name of what the Input sends.
        steps: The largest number of steps.
    """

    def __init__(self, builder: GraphBuilder, network: SpikingNetwork, images: str, steps: int) -> None:
        self._builder, self._network = builder, network
        self._input = input_values(builder, network, images, steps)
        self._synapses: dict[str, Synapse] = {}
        self._neurons: dict[str, NeuronNodes] = {}
        self._steps = steps
        # What is the same in several steps, or walks, is computed once.
        self._made: dict[tuple[str, str], str] = {}

    def run(self, rule: _Rule, length: int, steps: int, prefix: str = "") -> Unrolled:
        """Walks once: what reaches the Output, and the spikes of each layer, over the first `steps` steps.

        Args:
            rule: What a layer makes of its currents.
            length: How many steps are walked.
            steps: How many of them are told of.
            prefix: Of the names of sums and synapses.
        """
        network, builder = self._network, self._builder
        wires: Wires[tuple[str, ...]] = Wires(network)
        fired: dict[str, tuple[str, ...]] = {}
        for name, parts in wires.walk():
            arriving = summed(builder, f"{prefix}{name}", parts) if parts else self._input[:length]
            if name in network.neurons:
                layer = rule(self._nodes(name), arriving)
                wires[name], fired[name] = layer.spikes, layer.fired[:steps]
            else:
                wires[name] = tuple(
                    self._through(name, value, f"{step_name(f'{prefix}{name}', t, arriving)}/current")
                    for t, value in enumerate(arriving)
                )
        return wires.readout[:steps], fired

    def _nodes(self, name: str) -> NeuronNodes:
        if name not in self._neurons:
            self._neurons[name] = NeuronNodes(self._builder, name, self._network.neurons[name], self._steps)
        return self._neurons[name]

    def _through(self, name: str, value: str, result: str) -> str:
        if name not in self._synapses:
            self._synapses[name] = node_synapse(self._builder, self._network, name)
        if (name, value) not in self._made:
            self._made[name, value] = self._synapses[name](value, result)
        return self._made[name, value]


def input_values(builder: GraphBuilder, network: SpikingNetwork, images: str, steps: int) -> tuple[str, ...]:
    """What the Input sends in each step, or once for all: the images, and zeros after `input_steps`; or its frames."""
    if network.input_encoding == "frames":
        numbers = [builder.constant(f"{IMAGES}/t{t + 1}/number", np.array(t, np.int64)) for t in range(steps)]
        return tuple(
            builder.add("Gather", [images, number], f"{IMAGES}/t{t + 1}", axis=1) for t, number in enumerate(numbers)
        )
    shown = network.input_steps
    if shown is None or steps <= shown:
        return (images,)
    none = builder.add("Mul", [images, builder.constant(f"{IMAGES}/zero", np.array(0, np.float32))], f"{IMAGES}/none")
    return (images,) * shown + (none,) * (steps - shown)


def node_synapse(builder: GraphBuilder, network: SpikingNetwork, name: str, window: int = 1) -> Synapse:
    """What appends a node, for what is the sum of `window` steps."""
    sources, node = network.predecessors[name], over_window(network.graph.nodes[name], window)
    shape = network.shapes[sources[0]] if sources else network.input_shape
    return synapse(node, builder, name, shape, network.shapes[name])


def step_name(name: str, t: int, values: tuple[str, ...]) -> str:
    """What the nodes of a step are called, where there is more than one."""
    return f"{name}/t{t + 1}" if len(values) > 1 else name


def summed(builder: GraphBuilder, name: str, arriving: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The sum of what several edges bring, in the order of the edges, as the reference adds them."""
    total = arriving[0]
    for number, values in enumerate(arriving[1:], start=2):
        pairs = max(total, values, key=len)
        total = tuple(
            builder.add(
                "Add",
                [total[t if len(total) > 1 else 0], values[t if len(values) > 1 else 0]],
                f"{step_name(name, t, pairs)}/sum{number}",
            )
            for t in range(len(pairs))
        )
    return total
