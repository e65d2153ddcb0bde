"""One step of a network as a graph, with its states going in and out: for streams, and for runtimes that loop."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from cos_export.bounds import MAX_STEPS
from cos_export.network import FloatArray, NeuronSpec, SpikingNetwork
from cos_export.network.windows import windows
from cos_export.network.wires import Wires
from cos_export.nir_file.graph_metadata import producer
from cos_export.onnx_file.builder import MAX_BYTES, OPSET, GraphBuilder
from cos_export.onnx_file.description import about_step, about_step_images, metadata
from cos_export.onnx_file.integer_arithmetic import IntegerArithmetic
from cos_export.onnx_file.layer_after_layer import feeding_neurons
from cos_export.onnx_file.step_arithmetic import FloatArithmetic, StepArithmetic, Wire
from cos_export.onnx_file.step_check import check_step
from cos_export.onnx_file.step_interface import StepInterface, StepState, step_interface
from cos_export.onnx_file.storing import store
from cos_export.simulation.trace import Trace
from cos_export.whole_number import whole_number

__all__ = ["StepGraph", "build_step_model", "step_graph", "write_step"]


@dataclass(frozen=True)
class StepGraph:
    """A step graph before it is a model.

    Attributes:
        builder: Its nodes and arrays.
        interface: What goes in and out.
        network: What it holds.
        steps: T.
    """

    builder: GraphBuilder
    interface: StepInterface
    network: SpikingNetwork
    steps: int

    def model(self, *, apart: str | None = None) -> onnx.ModelProto:
        """The model, with its arrays in the file called `apart` if there is one."""
        encoding = "initializer" if self.network.quantisation is None else "initializer, rounded down"
        known = metadata(self.network, encoding, self.steps)
        about = about_step(self.network, self.interface)
        return self.builder.model("spiking_step", producer(), known, about, beside=apart)


def build_step_model(
    network: SpikingNetwork, steps: int, *, silent_inputs: bool = False, opset: int = OPSET
) -> onnx.ModelProto:
    """One step of a network: its potentials go in as `v/<layer>` and come out as `v_next/<layer>`.

        images              (batch, ...) float32; of a network of integers int8 or uint8, rounded by the caller
        start               a boolean: whether this is the first step, which starts from `v_init/<layer>` of the graph
                            in place of what is given as `v/<layer>`
        step                int64, its number from 1, in networks where one step differs from another
        v/<layer>           (batch, ...) float32, or int32 in a network of integers
        silent/<layer>      (batch, ...) booleans, with `silent_inputs`

        output              (batch, classes): what the step adds to the readout
        spikes/<layer>      (batch, ...) booleans, or uint8 in a network of integers
        v_next/<layer>      (batch, ...)

    The logits are readout_scale / T times the sum of all outputs. In a network of integers all numbers are integers,
    and `v_init/<layer>` is rounded down: from a half-integer, which no potential ties from, the same neurons fire.

    Under the layer-wise schedule a layer integrates until its window opens and fires in that alone (`windows`), so one
    run is T + (T - 1) D steps, or as many more as a layer needs that nothing reads. Images and the biases of synapses
    count in the first T of them, and biases behind the last neurons in the readout's T; a layer's own biases are part
    of what it starts from.

    Args:
        network: What to write.
        steps: T.
        silent_inputs: Whether every layer takes a mask of silent neurons for each sample.
        opset: Of ONNX, from 13 to 23.

    Raises:
        InputError: `steps` is below 1, or `opset` cannot be written.
        NetworkError: A node has no counterpart in integers, or the arrays are larger than one model can hold.
    """
    return step_graph(network, steps, silent_inputs=silent_inputs, opset=opset).model()


def step_graph(network: SpikingNetwork, steps: int, *, silent_inputs: bool = False, opset: int = OPSET) -> StepGraph:
    """The graph of `build_step_model`."""
    steps = whole_number("The number of steps", steps, 1, MAX_STEPS)
    interface = step_interface(network, steps, silent_inputs=silent_inputs)
    arithmetic: StepArithmetic = (
        FloatArithmetic(network) if network.quantisation is None else IntegerArithmetic(network)
    )
    builder = GraphBuilder(opset)
    builder.reserve(interface.images, interface.start, interface.output, *([interface.step] if interface.step else []))
    for state in interface.states:
        builder.reserve(state.input, state.output, state.spikes, *([state.silent] if state.silent else []))
        builder.reserve(
            *(
                f"{kind}/{state.layer}"
                for kind in ("threshold", "v_init", "v_reset", "bias", "silent")
                if f"{kind}/{state.layer}" != state.silent
            )
        )
    _Step(builder, network, steps, interface, arithmetic).write()
    return StepGraph(builder, interface, network, steps)


def write_step(
    network: SpikingNetwork,
    path: str | os.PathLike[str],
    steps: int,
    images: FloatArray,
    reference: Trace,
    *,
    opset: int = OPSET,
    external_above: int = MAX_BYTES,
) -> StepInterface:
    """Writes one step of a network as an ONNX file.

    What it takes and returns is said at `build_step_model`. Before it is moved into place it is looped over on a few
    samples of a recorded run, in ONNX Runtime and in ONNX's reference evaluator.

    Args:
        network: What to write.
        path: The file; one that is there is replaced.
        steps: T.
        images: (samples, ...), those of the recorded run.
        reference: The recorded run. If its states silence neurons, the graph takes masks as inputs.
        opset: Of ONNX, from 13 to 23.
        external_above: Bytes of arrays that the file itself may hold.

    Raises:
        InputError: `steps` is below 1, `opset` cannot be written, or the file cannot be.
        NetworkError: ONNX or ONNX Runtime refuses the graph, or it is too large for one file.
        ParityError: The file fires something else than the recorded run.
    """
    silent = reference.states is not None and bool(reference.states.silent)
    graph = step_graph(network, steps, silent_inputs=silent, opset=opset)

    def check(draft: Path) -> StepInterface:
        check_step(network, draft, graph.interface, images, reference)
        return graph.interface

    return store(path, graph.builder, lambda apart: graph.model(apart=apart), check, external_above)


class _Step:
    """The step while it is written."""

    def __init__(
        self,
        builder: GraphBuilder,
        network: SpikingNetwork,
        steps: int,
        interface: StepInterface,
        arithmetic: StepArithmetic,
    ) -> None:
        self._builder, self._network, self._steps = builder, network, steps
        self._interface, self._arithmetic = interface, arithmetic
        self._states = {state.layer: state for state in interface.states}
        kind = {"float32": TensorProto.FLOAT, "int8": TensorProto.INT8, "uint8": TensorProto.UINT8}
        about = about_step_images(network)
        shape: tuple[int | str, ...] = ("batch", *network.input_shape)
        self._images = builder.input(interface.images, shape, about, kind[interface.images_type])
        start = "True in the first step: the graph's own initial potentials are taken in place of v/<layer>."
        self._start = builder.input(interface.start, (), start, TensorProto.BOOL)
        self._number = None
        if interface.step is not None:
            about = "The number of this step, from 1."
            self._number = builder.input(interface.step, (), about, TensorProto.INT64)

    def write(self) -> None:
        builder, network, arithmetic = self._builder, self._network, self._arithmetic
        layerwise = network.schedule == "layerwise"
        inner = feeding_neurons(network)
        shown = self._steps if layerwise else network.input_steps
        first = self._gate("first", 0, self._steps) if layerwise else None
        when = windows(network, self._steps) if layerwise else None
        last = None
        if when is not None:
            # The readout is complete in the run's last step, unless nothing reads the deepest layer.
            until = when.latency if when.latency < when.last_step else None
            last = self._gate("last", when.readout_opens, until)
        wires: Wires[Wire] = Wires(network)
        for name, arriving in wires.walk():
            if not arriving:
                inside = None if shown is None else self._within(self._images, 0, shown)
                wires[name] = arithmetic.images(builder, self._images, inside)
            elif name in network.neurons:
                current = arithmetic.current(builder, name, arithmetic.summed(builder, name, arriving))
                wires[name] = self._neurons(self._states[name], network.neurons[name], current)
            else:
                gate = first if name in inner else last
                wires[name] = arithmetic.through(builder, name, arithmetic.summed(builder, name, arriving), gate)
        total = arithmetic.current(builder, "readout", wires.readout)
        builder.add("Identity", [total], self._interface.output, reserved=True)
        about = "(batch, classes): what this step adds to the readout."
        builder.output(self._interface.output, arithmetic.kind, ("batch", *network.output_shape), about)
        for state in self._interface.states:
            shape: Sequence[int | str] = ("batch", *state.shape)
            fired = f"(batch, ...): whether each neuron of layer {state.layer!r} fired in this step."
            builder.output(state.spikes, arithmetic.spike_kind, shape, fired)
            left = (
                f"(batch, ...): the potentials of layer {state.layer!r} after this step; the next one's {state.input}."
            )
            builder.output(state.output, arithmetic.kind, shape, left)

    def _neurons(self, state: StepState, spec: NeuronSpec, current: str) -> Wire:
        builder, arithmetic, name = self._builder, self._arithmetic, state.layer
        about = f"(batch, ...): the potentials of layer {name!r} before this step; anything where start is true."
        given = builder.input(state.input, ("batch", *state.shape), about, arithmetic.kind)
        charge = builder.add(
            "Add", [self._before(given, name, spec), self._charged(name, spec, current)], f"{name}/charge"
        )
        threshold = self._held_array(f"threshold/{name}", _one_if_uniform(spec.threshold))
        # A half-integer above an integer threshold is one whose integer below reaches it: no potential ties.
        strict = spec.condition == ">" and arithmetic.kind == TensorProto.FLOAT
        fired = builder.add("Greater" if strict else "GreaterOrEqual", [charge, threshold], f"{name}/reached")
        if state.last_step is not None:
            fired = builder.add("And", [fired, self._window(state)], f"{name}/fired")
        if spec.reset == "value":
            reset = self._held_array(f"v_reset/{name}", np.asarray(spec.v_reset)[np.newaxis])
            builder.add("Where", [fired, reset, charge], state.output, reserved=True)
        else:
            spike = builder.add("Cast", [fired], f"{name}/one", to=arithmetic.kind)
            drop = builder.add("Mul", [spike, threshold], f"{name}/drop")
            builder.add("Sub", [charge, drop], state.output, reserved=True)
        audible = self._audible(state, spec, fired)
        builder.add("Cast", [audible], state.spikes, reserved=True, to=arithmetic.spike_kind)
        return arithmetic.spikes(builder, name, audible)

    def _before(self, given: str, name: str, spec: NeuronSpec) -> str:
        """v(t - 1): what is given, or in the first step what the layer starts from."""
        start = np.asarray(spec.v_init, np.float32)[np.newaxis]
        bias = spec.bias_over_window(self._steps) if self._network.schedule == "layerwise" else None
        own = self._held_array(f"v_init/{name}", start if bias is None else start + bias)
        return self._builder.add("Where", [self._start, own, given], f"{name}/before")

    def _charged(self, name: str, spec: NeuronSpec, current: str) -> str:
        """The current with the step's bias, none of which there is past the table's end."""
        if spec.bias is None or self._number is None or self._network.schedule == "layerwise":
            return current
        table = spec.bias_per_step(len(spec.bias) + 1)
        whole = self._held_array(f"bias/{name}", table)
        one, past = (
            self._builder.constant(f"{name}/{what}", np.array(value, np.int64))
            for what, value in (("step_one", 1), ("past", len(spec.bias)))
        )
        index = self._builder.add("Sub", [self._number, one], f"{name}/index")
        row = self._builder.add("Min", [index, past], f"{name}/row")
        beta = self._builder.add("Gather", [whole, row], f"{name}/bias", axis=0)
        return self._builder.add("Add", [current, beta], f"{name}/biased")

    def _audible(self, state: StepState, spec: NeuronSpec, fired: str) -> str:
        """What a layer fires, without the spikes of neurons that are silent."""
        builder, name = self._builder, state.layer
        if state.silent is not None:
            about = f"(batch, ...): neurons of layer {name!r} whose spikes are dropped."
            mask = builder.input(state.silent, ("batch", *state.shape), about, TensorProto.BOOL)
        elif spec.silent is not None:
            value = np.asarray(spec.silent, np.bool_)[np.newaxis]
            mask = builder.constant(f"silent/{name}", value, reserved=True)
        else:
            return fired
        return builder.add("And", [fired, builder.add("Not", [mask], f"{name}/speaks")], f"{name}/sent")

    def _held_array(self, name: str, values: object) -> str:
        return self._builder.constant(name, self._arithmetic.numbers(values), reserved=True)

    def _gate(self, name: str, after: int, until: int | None) -> str:
        """1 in the steps after `after` and up to `until`, in the type of currents; 0 in the others."""
        inside = self._within(f"gate/{name}", after, until)
        return self._builder.add("Cast", [inside], f"gate/{name}", to=self._arithmetic.kind)

    def _window(self, state: StepState) -> str:
        return self._within(f"{state.layer}/window", state.first_step - 1, state.last_step)

    def _within(self, name: str, after: int, until: int | None) -> str:
        number = str(self._number)
        least = self._builder.constant(f"{name}/after", np.array(after, np.int64))
        inside = self._builder.add("Greater", [number, least], f"{name}/open")
        if until is None:
            return inside
        most = self._builder.constant(f"{name}/until", np.array(until, np.int64))
        closed = self._builder.add("Greater", [number, most], f"{name}/closed")
        return self._builder.add(
            "And", [inside, self._builder.add("Not", [closed], f"{name}/not_yet")], f"{name}/inside"
        )


def _one_if_uniform(values: object) -> NDArray[Any]:
    array = np.asarray(values)
    first = array.reshape(-1)[0]
    return np.array(first) if bool((array == first).all()) else array
