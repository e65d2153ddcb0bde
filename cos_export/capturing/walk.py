"""Walks a traced module once, and converts or refuses every operation of it."""

from __future__ import annotations

import operator as python_operator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, fx

from cos_export.capturing.aliasing import Aliasing
from cos_export.capturing.builder import Builder
from cos_export.capturing.constants import Constants
from cos_export.capturing.findings import Finding, Unsupported
from cos_export.capturing.journal import Journal

# Imported for what they register.
from cos_export.capturing.operators import (  # noqa: F401
    arithmetic,
    channels,
    max_pooling,
    pooling,
    reshaping,
    space,
    synapses,
    windows,
)
from cos_export.capturing.operators.rectifiers import rectifier_keys
from cos_export.capturing.operators.registry import OPERATORS, Call, Converted
from cos_export.capturing.options import Options
from cos_export.capturing.refusals import refusal
from cos_export.capturing.result_shapes import check_results, sample_shape
from cos_export.capturing.tail import Tail
from cos_export.capturing.tracing import (
    REPLACED,
    Traced,
    has_module,
    named_arguments,
    operation,
    operation_path,
)
from cos_export.capturing.values import Value
from cos_export.network import SpikingNetwork
from cos_export.user_code import summary

__all__ = ["Walk", "walk"]

_BOOKKEEPING = ("aten._assert", "aten.sym_", "aten.sym_constrain", "aten._assert_tensor_metadata")


@dataclass(frozen=True)
class Walk:
    """What became of a module.

    Attributes:
        findings: One for each operation on something that depends on the input, and for the model as a whole.
        network: The spiking network, or None if a finding blocks.
        unbounded: Its layers that stand for a ReLU without an upper bound, which they clip at their threshold.
        replaced: Whether an operation was replaced by another function, such as max pooling by average pooling.
    """

    findings: list[Finding]
    network: SpikingNetwork | None
    unbounded: frozenset[str] = frozenset()
    replaced: bool = False


def walk(traced: Traced, options: Options) -> Walk:
    """Converts `traced`, going on past what cannot be converted, so that all of it is found."""
    return _Walker(traced, options).run()


class _Walker:
    def __init__(self, traced: Traced, options: Options) -> None:
        self.traced = traced
        self.options = options
        self.keys = rectifier_keys(traced)
        self.builder = Builder(tuple(traced.input.meta["val"].shape[1:]))
        self.constants = Constants(traced.constants)
        self.values: dict[fx.Node, Value] = {traced.input: self.builder.input}
        # The results of an operation that has several, such as chunk.
        self.parts: dict[fx.Node, tuple[Value, ...]] = {}
        self.synapses_of: dict[fx.Node, tuple[str, ...]] = {}
        self.journal = Journal(traced)
        self.aliasing = Aliasing(traced.graph.nodes)

    def run(self) -> Walk:
        output: Value | None = None
        for node in self.traced.graph.nodes:
            if node in self.traced.left_out:
                continue
            if node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                output = self._output(node)
        if self.builder.layer_count == 0 and not self.journal.blocked:
            self.journal.block_model(
                "model",
                "it has no QCFS activation and no ReLU, so nothing in it would spike",
                "use cos_export.QCFS or nn.ReLU for its activations and train with it",
            )
        replaced = any(REPLACED in node.meta for node in self.traced.graph.nodes)
        return Walk(self.journal.findings, self._finish(output), frozenset(self.builder.unbounded), replaced)

    def _finish(self, output: Value | None) -> SpikingNetwork | None:
        if output is None or self.journal.blocked:
            return None
        try:
            return self.builder.finish(output, Tail(self.traced.left_out).names)
        except Unsupported as error:
            self.journal.block_model("output", error.reason, error.fix)
            return None

    def _call(self, node: fx.Node) -> None:
        read = [argument for argument in node.all_input_nodes if argument in self.values]
        result = node.meta.get("val")
        if not read:
            if isinstance(result, Tensor):
                self._constant(node)
            return
        if str(node.target).startswith(_BOOKKEEPING) and not isinstance(result, Tensor):
            return
        self.aliasing.add(node, read[0])
        if any(self.values[argument].lost for argument in read) and str(node.target) in OPERATORS:
            self.journal.unchecked(node)
            self.values[node] = self._stand_in(result)
            return
        if node.target is python_operator.getitem:
            # The operator that returned several values has been converted, or refused, already.
            several = self.parts.get(read[0])
            self.values[node] = several[node.args[1]] if several else self._stand_in(result)  # type: ignore[index]
            return
        try:
            converted = self._convert(node, result)
        except Unsupported as error:
            self.journal.refused(node, error)
            self.values[node] = self._stand_in(result)
            return
        if isinstance(converted.value, Value):
            self.values[node] = converted.value
        else:
            # Read by nothing but getitem; the value stands in for the whole.
            self.values[node], self.parts[node] = converted.value[0], converted.value
        if converted.synapses:
            self.synapses_of[node] = converted.synapses
        self.journal.converted(node, converted.becomes, converted.warning)

    def _convert(self, node: fx.Node, result: Any) -> Converted:
        convert = OPERATORS.get(str(node.target))
        if convert is None and "out" in node.kwargs:
            raise Unsupported("it writes its result into out=", "use what it returns instead, and leave out= away")
        if convert is None:
            raise Unsupported(*refusal(operation(node)))
        known = check_results(result if isinstance(result, list | tuple) else [result], self.traced.batch)
        self.aliasing.check(node)
        call = Call(
            arguments=self._arguments(node),
            shapes=known,
            node=node,
            name=self._name(node),
            key=self.keys.get(node, ""),
            builder=self.builder,
            options=self.options,
            only_reader_of=self._only_read_synapses(node),
        )
        try:
            converted = convert(call)
        except Unsupported:
            raise
        except Exception as error:
            # Whatever it was, all other findings must still be told.
            raise Unsupported(f"its conversion failed ({summary(error)})", "report this model") from error
        given_back = (converted.value,) if isinstance(converted.value, Value) else converted.value
        if tuple(value.shape for value in given_back) != known:
            raise Unsupported(
                f"it gives {known}, and what it would become gives {[value.shape for value in given_back]}",
                "report this model",
            )
        return converted

    def _arguments(self, node: fx.Node) -> dict[str, Any]:
        """The arguments by name, defaults filled in, nodes replaced by what they hold."""

        def held(argument: fx.Node) -> Any:
            return self.values.get(argument, self.constants.get(argument, argument))

        mapped: dict[str, Any] = fx.node.map_arg(named_arguments(node), held)
        return mapped

    def _only_read_synapses(self, node: fx.Node) -> tuple[str, ...]:
        """The synapses whose sum feeds `node` and nothing else, through what changes nothing."""
        read = next((argument for argument in node.args if argument in self.values), None)
        while isinstance(read, fx.Node) and len(read.users) == 1:
            if read in self.synapses_of:
                names = self.synapses_of[read]
                terms = self.values[read].terms
                return names if [term.source for term in terms if term.plain] == list(names) else ()
            before = read.args[0] if read.args else None
            if not isinstance(before, fx.Node) or self.values.get(read) is not self.values.get(before):
                return ()
            read = before
        return ()

    def _constant(self, node: fx.Node) -> None:
        try:
            self.constants.compute(node)
        except Unsupported as error:
            self.journal.refused_constant(node, error)

    def _output(self, node: fx.Node) -> Value | None:
        entries: tuple[Any, ...] = node.args[0]  # type: ignore[assignment]
        # What is None, as the auxiliary logits of eval mode, is not an output.
        returned = [entry for entry in entries if entry is not None]
        if len(returned) != 1:
            self.journal.block_model("output", f"it returns {len(returned)} values", "return the logits alone")
            return None
        value = self.values.get(returned[0]) if isinstance(returned[0], fx.Node) else None
        if value is None:
            self.journal.block_model(
                "output", "its output does not depend on the input", "return the logits of the input"
            )
            return None
        self.journal.findings += Tail(self.traced.left_out).findings()
        return value

    def _stand_in(self, result: Any) -> Value:
        shape = sample_shape(result, self.traced.batch)
        if shape is None:
            return replace(self.builder.unknown((1,)), lost=True)
        return self.builder.unknown(shape)

    def _name(self, node: fx.Node) -> str:
        """The module's path if the module is this operation, else the path and the operation."""
        path, whole = operation_path(self.traced, node)
        if whole:
            return path
        key = f"{path}.{operation(node)}" if path else operation(node)
        return f"{key}_function" if has_module(self.traced, key) else key
