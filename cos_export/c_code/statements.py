"""The statements of C that run a layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from cos_export.c_code.body import Body
from cos_export.c_code.layers import Layer, Memory
from cos_export.c_code.names import Identifiers, readable
from cos_export.c_code.operations import Convolve, Dense, Multiply, Pool
from cos_export.c_code.plan import Add, Apply, Clear, Step, Wire
from cos_export.c_code.storage import Storage
from cos_export.c_code.tables import Tables, rows_of
from cos_export.network import NeuronSpec, SpikingNetwork

__all__ = ["body_of"]


def body_of(network: SpikingNetwork, steps: int, layers: list[Layer], memory: Memory, taken: Identifiers) -> Body:
    """The body of the file that runs `network` for `steps` steps."""
    body = Body(network, steps, memory, taken, Tables(taken))
    for layer in layers:
        write = _Statements(body, layer)
        lines = list(write.readout() if layer.spec is None else write.neurons(layer.spec))
        what = "The readout" if layer.spec is None else f"Layer {readable(layer.name)}"
        body.functions.append((what, taken.of(layer.name, before="run_"), lines))
    return body


class _Statements:
    """Writes what one layer does."""

    def __init__(self, body: Body, layer: Layer) -> None:
        self._body, self._layer = body, layer
        # How large a number of the sums that are kept for a moment can be.
        self._largest: dict[str, float] = {}
        self._pixels = f"{layer.storage.pixels}u, {layer.storage.channels}u"

    def neurons(self, spec: NeuronSpec) -> Iterator[str]:
        """A layer of neurons."""
        yield f"int32_t *const potentials = {self._word('potentials')};"
        if self._body.window:
            yield from self._in_window(spec)
        else:
            yield from self._step_by_step(spec)

    def _step_by_step(self, spec: NeuronSpec) -> Iterator[str]:
        layer, body = self._layer, self._body
        yield from self._current_of_input()
        yield from self._table_call("fill", "_potentials", layer.rows(spec.v_init), "potentials")
        yield f"for (uint32_t step = 0u; step < {body.steps}u; ++step) {{"
        yield f"    uint8_t *const spikes = {self._spikes(layer.name, layer.storage)};"
        inner = [
            *self._all(layer.from_layers, "potentials", "spikes"),
            *self._input_of_step("potentials"),
            *self._table_call("plus", "_constants", layer.constant, "potentials"),
            *self._bias_of_step(spec),
            self._fire(spec),
        ]
        if spec.silent is not None and spec.silent.any():
            audible = layer.storage.packed(~np.asarray(spec.silent, np.bool_))
            table = body.table(layer.name, "_audible", audible, "uint8_t")
            inner.append(body.call("silence", f"{layer.storage.spike_bytes}u", table.name, "spikes"))
        yield from (f"    {line}" for line in inner)
        yield f"    TRACE({layer.number}u, step, spikes, {layer.storage.spike_bytes}u)"
        yield "}"

    def _input_of_step(self, sums: str) -> Iterator[str]:
        """Adds the current of the step's frame, or that of an input in the steps in which it is held."""
        if not self._layer.from_input:
            return
        if self._body.frames:
            yield from self._all(self._layer.from_input, sums, "inputs")
            return
        shown = self._body.network.input_steps
        call = self._body.call("plus_current", f"{self._layer.storage.size}u", "current", sums)
        yield call if shown is None or shown >= self._body.steps else f"if (step < {shown}u) {call}"

    def _in_window(self, spec: NeuronSpec) -> Iterator[str]:
        layer, body = self._layer, self._body
        yield f"uint8_t *const counts = {self._counts(layer.name)};"
        window = layer.constant * body.steps
        if spec.bias is not None:
            table = np.asarray(spec.bias[: body.steps], np.float64).sum(0).astype(np.int64)
            flat = np.broadcast_to(table.reshape(-1, *[1] * (len(spec.shape) - 1)), spec.shape)
            window = window + np.asarray(layer.storage.arranged(flat))
        start = rows_of(np.asarray(window + layer.rows(spec.v_init)))
        if layer.from_input and not body.frames:
            yield self._cleared("potentials", layer.storage.size)
            yield from self._all(layer.from_input, "potentials", "inputs")
            if body.steps > 1:
                yield body.call("times", f"{layer.storage.size}u", f"{body.steps}", "potentials")
            yield from self._table_call("plus", "_potentials", start, "potentials")
        else:
            yield from self._table_call("fill", "_potentials", start, "potentials")
        if layer.from_input and body.frames:
            yield f"for (uint32_t step = 0u; step < {body.steps}u; ++step) {{"
            yield from (f"    {line}" for line in self._all(layer.from_input, "potentials", "inputs"))
            yield "}"
        yield from self._all(layer.from_layers, "potentials", "counts")
        kind, threshold = self._threshold()
        yield body.call(f"fire_in_window_{kind}", self._pixels, threshold, "potentials", "counts")
        if spec.silent is not None and spec.silent.any():
            audible = np.asarray(layer.storage.arranged(~np.asarray(spec.silent, np.bool_))).ravel().astype(np.uint8)
            table = body.table(layer.name, "_audible", audible, "uint8_t")
            yield body.call("silence_counts", f"{layer.storage.size}u", table.name, "counts")
        yield f"TRACE({layer.number}u, 0u, counts, {layer.storage.size}u)"

    def readout(self) -> Iterator[str]:
        """What reaches the Output, added up over the steps."""
        layer, body = self._layer, self._body
        yield from self._current_of_input()
        yield f"for (uint32_t step = 0u; step < {body.steps}u; ++step) {{"
        yield "    int32_t *const sums = state->sums[step];"
        yield "    if (step == 0u) {"
        yield f"        {self._cleared('sums', layer.storage.size)}"
        yield "    } else {"
        yield "        memcpy(sums, state->sums[step - 1u], sizeof state->sums[0]);"
        yield "    }"
        inner = [
            *self._all(layer.from_layers, "sums", "reached" if body.window else "spikes"),
            *self._input_of_step("sums"),
            *self._table_call("plus", "_constants", layer.constant, "sums"),
        ]
        yield from (f"    {line}" for line in inner)
        yield "}"

    def _current_of_input(self) -> Iterator[str]:
        """The current of an input that is held, once for all steps."""
        if not self._layer.from_input or self._body.frames:
            return
        yield f"int32_t *const current = {self._word('current')};"
        yield self._cleared("current", self._layer.storage.size)
        yield from self._all(self._layer.from_input, "current", "inputs")

    def _bias_of_step(self, spec: NeuronSpec) -> Iterator[str]:
        layer, body = self._layer, self._body
        if spec.bias is None:
            return
        known = np.asarray(spec.bias[: body.steps])
        columns = np.broadcast_to(
            known.reshape(len(known), -1, *[1] * (len(spec.shape) - 1)), (len(known), *spec.shape)
        )
        arranged = layer.storage.arranged(columns.astype(np.int64), 1)
        compact = [np.asarray(part) for part in arranged]
        if all(np.all(part == part[:1]) for part in compact):
            compact = [part[:1] for part in compact]
        table = body.table(layer.name, "_biases", np.stack(compact).ravel())
        size = compact[0].size
        pixel = layer.storage.channels if size > layer.storage.channels else 0
        call = body.call(
            f"plus_{table.kind}", self._pixels, f"{table.name} + step * {size}u, {pixel}u, 1u", "potentials"
        )
        yield call if len(known) >= body.steps else f"if (step < {len(known)}u) {call}"

    def _fire(self, spec: NeuronSpec) -> str:
        kind, threshold = self._threshold()
        if spec.reset == "subtract" or spec.v_reset is None:
            return self._body.call(f"fire_{kind}", self._pixels, threshold, "potentials", "spikes")
        resets = np.broadcast_to(
            self._layer.rows(spec.v_reset), (self._layer.storage.pixels, self._layer.storage.channels)
        )
        table = self._body.table(self._layer.name, "_resets", resets.ravel(), "int32_t")
        return self._body.call(f"fire_{kind}_to", self._pixels, threshold, table.name, "potentials", "spikes")

    def _threshold(self) -> tuple[str, str]:
        """Whether a layer has one threshold, one for each channel or one for each neuron; and it or its table."""
        rows = self._layer.thresholds
        if rows.size == 1:
            return "one", str(int(rows[0, 0]))
        table = self._body.table(self._layer.name, "_thresholds", rows.ravel(), "int32_t")
        return ("channels" if len(rows) == 1 else "neurons"), table.name

    def _table_call(self, kernel: str, suffix: str, rows: NDArray[np.int64], to: str) -> Iterator[str]:
        if kernel == "plus" and not rows.any():
            return
        table, arguments = self._body.flat(self._layer.name, suffix, rows)
        yield self._body.call(f"{kernel}_{table.kind}", self._pixels, arguments, to)

    def _all(self, steps: Iterable[Step], sums: str, leaf: str) -> Iterator[str]:
        for step in steps:
            yield from self._step(step, sums, leaf)

    def _step(self, step: Step, sums: str, leaf: str) -> Iterator[str]:
        body = self._body
        if isinstance(step, Clear):
            self._largest[step.sums.name] = 0
            yield self._cleared(self._word("sums", step.sums.name), step.sums.storage.size)
            return
        if step.into is not None:
            self._largest[step.into.name] += self._reach(step)
        into = sums if step.into is None else self._word("sums", step.into.name)
        source, pointer = self._source(step.source, leaf)
        held = step.source.storage
        if isinstance(step, Add):
            if step.order.orders_as(held):
                yield body.call(f"add_{source}", f"{held.pixels}u, {held.channels}u", pointer, into)
            else:
                place = np.empty(held.size, np.int64)
                place[step.order.order] = np.arange(held.size)
                table = body.table(step.source.name, "_places", place[held.order], "int32_t")
                yield body.call(f"add_{source}_at", f"{held.pixels}u, {held.channels}u", table.name, pointer, into)
            return
        yield self._applied(step, source, pointer, into)

    def _applied(self, step: Apply, source: str, pointer: str, into: str) -> str:
        body, does, held = self._body, step.operation, step.source.storage
        match does:
            case Convolve():
                groups = does.groups
                written = does.weights.shape[3]
                counts = (held.channels, held.channels // groups, written, groups * written)
                window = body.geometry(step.node, "convolution", (does.vertical, does.horizontal), *counts)
                weights = body.table(step.node, "_weights", does.weights.reshape(-1, written), "int8_t")
                kernel = f"convolve_grouped_{source}" if groups > 1 else f"convolve_{source}"
                return body.call(kernel, f"&{window}", f"(const int8_t *){weights.name}", pointer, into)
            case Dense():
                weights = body.table(step.node, "_weights", does.weights, "int8_t")
                sizes = f"{held.pixels}u, {held.channels}u, {does.weights.shape[1]}u"
                return body.call(f"dense_{source}", sizes, f"(const int8_t *){weights.name}", pointer, into)
            case Multiply():
                rows = rows_of(does.factors)
                table, arguments = body.flat(step.node, "_factors", rows)
                sizes = f"{held.pixels}u, {held.channels}u"
                return body.call(f"multiply_{source}_{table.kind}", sizes, arguments, pointer, into)
            case Pool():
                window = body.geometry(step.node, "pooling", (does.vertical, does.horizontal), held.channels)
                return body.call(f"pool_{source}", f"&{window}", pointer, into)
        raise TypeError(type(does))

    def _source(self, wire: Wire, leaf: str) -> tuple[str, str]:
        """How a wire is read, and the arguments that say where."""
        if wire.kind == "sums":
            small = self._largest[wire.name] <= np.iinfo(np.int16).max
            return "small_sums" if small else "sums", self._word("sums", wire.name)
        if leaf == "inputs":
            name, size = self._body.input_name, math.prod(self._body.network.input_shape)
            return leaf, f"{name} + step * {size}u" if self._body.frames else name
        if leaf == "spikes":
            return leaf, self._spikes(wire.name, wire.storage)
        return leaf, self._counts(wire.name) + (", step" if leaf == "reached" else "")

    def _reach(self, step: Apply | Add) -> float:
        """How large what a step adds to a number can be; of weights nothing is asked."""
        wire, body = step.source, self._body
        if wire.kind == "layer":
            one: float = body.steps if body.window else 1
        else:
            one = 255 if wire.kind == "input" else self._largest[wire.name]
        if isinstance(step, Add):
            return one
        does = step.operation
        return one * does.vertical.kernel * does.horizontal.kernel if isinstance(does, Pool) else math.inf

    def _word(self, *key: str) -> str:
        return _at("state->words", self._body.memory.words[(self._layer.name, *key)])

    def _spikes(self, name: str, storage: Storage) -> str:
        return f"{self._counts(name)} + step * {storage.spike_bytes}u"

    def _counts(self, name: str) -> str:
        return _at("state->bytes", self._body.memory.bytes[(name,)])

    def _cleared(self, sums: str, size: int) -> str:
        return f"memset({sums}, 0, {size}u * sizeof(int32_t));"


def _at(pool: str, begin: int) -> str:
    return f"{pool} + {begin}" if begin else pool
