"""Walks a traced module once, and converts or refuses every operation of it."""

from __future__ import annotations

import operator as python_operator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

# Imported for what they register.
from cos_export.capturing import arithmetic, pooling, reshaping, synapses  # noqa: F401
from cos_export.capturing.builder import Builder
from cos_export.capturing.findings import Finding, Unsupported, blockers
from cos_export.capturing.operators import OPERATORS, Call, Converted
from cos_export.capturing.refusals import refusal
from cos_export.capturing.tracing import Traced, module_path, source_line
from cos_export.capturing.values import Value
from cos_export.graph import Shape
from cos_export.network import SpikingNetwork

__all__ = ["Walk", "walk"]

_BOOKKEEPING = ("aten._assert", "aten.sym_", "aten.sym_constrain", "aten._assert_tensor_metadata")


@dataclass(frozen=True)
class Walk:
    """What became of a module.

    Attributes:
        findings: One for each operation on something that depends on the input, and for the model as a whole.
        network: The spiking network, or None if a finding blocks.
    """

    findings: list[Finding]
    network: SpikingNetwork | None


def walk(traced: Traced) -> Walk:
    """Converts `traced`, going on past what cannot be converted, so that all of it is found."""
    return _Walker(traced).run()


class _Walker:
    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self.builder = Builder(tuple(traced.input.meta["val"].shape[1:]))
        self.constants = dict(traced.constants)
        self.values: dict[fx.Node, Value] = {traced.input: self.builder.input}
        self.synapse_of: dict[fx.Node, str] = {}
        self.findings: list[Finding] = []
        self.rank = {node: i for i, node in enumerate(traced.graph.nodes)}
        # In-place operators and views: nodes that share memory have the same root.
        self.root: dict[fx.Node, fx.Node] = {}

    def run(self) -> Walk:
        output: Value | None = None
        for node in self.traced.graph.nodes:
            if node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                output = self._output(node)
        if self.builder.layer_count == 0 and not any(f.op == "qcfs" for f in self.findings):
            self._block_model(
                "model",
                "it has no QCFS activation, so nothing in it would spike",
                "use cos_export.QCFS for its activations and train with it",
            )
        return Walk(self.findings, self._finish(output))

    def _finish(self, output: Value | None) -> SpikingNetwork | None:
        if output is None or blockers(self.findings):
            return None
        try:
            return self.builder.finish(output)
        except Unsupported as error:
            self._block_model("output", error.reason, error.fix)
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
        self.root[node] = self.root.get(read[0], read[0]) if self._shares_memory(node) else node
        if any(self.values[argument].lost for argument in read) and str(node.target) in OPERATORS:
            self._add(node, "nothing yet: it was not checked, for its input cannot be converted")
            self.values[node] = self._stand_in(result)
            return
        if node.target is python_operator.getitem:
            # The operator that returned several values has been refused already.
            self.values[node] = self._stand_in(result)
            return
        try:
            converted = self._convert(node, result)
        except Unsupported as error:
            self._add(node, "", error.reason, error.fix)
            self.values[node] = self._stand_in(result)
            return
        self.values[node] = converted.value
        if converted.synapse is not None:
            self.synapse_of[node] = converted.synapse
        self._add(node, converted.becomes)

    def _convert(self, node: fx.Node, result: Any) -> Converted:
        convert = OPERATORS.get(str(node.target))
        if convert is None:
            raise Unsupported(*refusal(_op(node)))
        shape = self._sample_shape(result)
        if shape is None:
            given = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise Unsupported(
                f"its result {given} does not keep the batch axis in front, so samples would be mixed",
                "leave axis 0 alone: flatten with x.flatten(1), average over (2, 3)",
            )
        if result.dtype != torch.float32:
            raise Unsupported(f"its result is of type {result.dtype}", "compute in float32 throughout")
        self._check_in_place(node)
        converted = convert(
            Call(
                arguments=self._arguments(node),
                shape=shape,
                name=self._name(node),
                builder=self.builder,
                only_reader_of=self._only_read_synapse(node),
            )
        )
        if converted.value.shape != shape:
            raise Unsupported(
                f"it gives {shape}, and what it would become gives {converted.value.shape}", "report this model"
            )
        return converted

    def _arguments(self, node: fx.Node) -> dict[str, Any]:
        """The arguments by name, defaults filled in, nodes replaced by what they hold."""

        def held(argument: fx.Node) -> Any:
            return self.values.get(argument, self.constants.get(argument, argument))

        schema = node.target._schema.arguments  # type: ignore[union-attr]
        given: dict[str, Any] = {entry.name: value for entry, value in zip(schema, node.args, strict=False)}
        mapped = fx.node.map_arg({**given, **node.kwargs}, held)
        return {entry.name: mapped.get(entry.name, entry.default_value) for entry in schema}

    def _only_read_synapse(self, node: fx.Node) -> str | None:
        """The synapse that feeds `node` and nothing else, through what changes nothing."""
        read = node.args[0] if node.args else None
        while isinstance(read, fx.Node) and len(read.users) == 1:
            if read in self.synapse_of:
                name = self.synapse_of[read]
                terms = self.values[read].terms
                return name if [(t.source, t.scale) for t in terms] == [(name, 1.0)] else None
            before = read.args[0] if read.args else None
            if not isinstance(before, fx.Node) or self.values.get(read) is not self.values.get(before):
                return None
            read = before
        return None

    def _check_in_place(self, node: fx.Node) -> None:
        """Refuses to overwrite what is read again: the graph would go on with the old value.

        Raises:
            Unsupported: A later operation reads the overwritten memory other than through the result.
        """
        if not _mutates(node):
            return
        for other, root in self.root.items():
            if other is not node and root is self.root[node]:
                self._refuse_later_reader(other, node)
        self._refuse_later_reader(self.root[node], node)

    def _refuse_later_reader(self, memory: fx.Node, node: fx.Node) -> None:
        if memory is not node and any(self.rank[user] > self.rank[node] for user in memory.users):
            raise Unsupported(
                "it overwrites in place what is read again later", f"use {_op(node).rstrip('_')} that is not in place"
            )

    def _shares_memory(self, node: fx.Node) -> bool:
        schema = getattr(node.target, "_schema", None)
        if _mutates(node):
            return True
        # reshape, contiguous, dropout and to() return their input itself when there is nothing to do.
        sharing = ("reshape", "contiguous", "dropout", "flatten", "to", "feature_dropout")
        aliased = schema is not None and any(entry.alias_info is not None for entry in schema.returns)
        return aliased or _op(node) in sharing

    def _constant(self, node: fx.Node) -> None:
        """Computes what does not depend on the input, such as a weight that is normalised in forward."""
        if _mutates(node):
            self._add(
                node,
                "",
                "forward changes a buffer of the model, so that one call depends on the one before",
                "keep no state between calls, or change it in training mode only",
            )
            return
        if not all(argument in self.constants for argument in node.all_input_nodes) or not callable(node.target):
            return
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.constants.__getitem__)
        with torch.no_grad():
            result = node.target(*args, **kwargs)
        if isinstance(result, Tensor):
            self.constants[node] = result

    def _output(self, node: fx.Node) -> Value | None:
        returned: tuple[Any, ...] = node.args[0]  # type: ignore[assignment]
        if len(returned) != 1:
            self._block_model("output", f"it returns {len(returned)} values", "return the logits alone")
            return None
        value = self.values.get(returned[0]) if isinstance(returned[0], fx.Node) else None
        if value is None:
            self._block_model("output", "its output does not depend on the input", "return the logits of the input")
            return None
        if len(value.shape) != 1 and not value.lost:
            shape = ", ".join(map(str, value.shape))
            self._block_model(
                "output",
                f"it returns (batch, {shape}), and a readout is (batch, classes)",
                "flatten, or average over height and width, and end in a linear layer",
            )
        return value

    def _stand_in(self, result: Any) -> Value:
        shape = self._sample_shape(result)
        if shape is None:
            return replace(self.builder.unknown((1,)), lost=True)
        return self.builder.unknown(shape)

    def _sample_shape(self, result: Any) -> Shape | None:
        """The shape without the batch axis, or None if that is not in front."""
        if not isinstance(result, Tensor) or result.ndim < 2:
            return None
        batch, *rest = result.shape
        sizes = [str(n) for n in rest]
        if str(batch) != self.traced.batch or not all(n.isdigit() for n in sizes) or "0" in sizes:
            return None
        return tuple(int(n) for n in sizes)

    def _name(self, node: fx.Node) -> str:
        """The module's path if the module is this operation, else the path and the operation."""
        path = module_path(node)
        if path and not any(True for _ in self.traced.module.get_submodule(path).children()):
            return path
        return f"{path}_{_op(node)}" if path else _op(node)

    def _add(self, node: fx.Node, becomes: str, blocker: str | None = None, fix: str | None = None) -> None:
        self.findings.append(Finding(module_path(node), _op(node), source_line(node), becomes, blocker, fix))

    def _block_model(self, op: str, blocker: str, fix: str) -> None:
        self.findings.append(Finding("", op, None, "", blocker, fix))


def _op(node: fx.Node) -> str:
    """What PyTorch calls the operation: "conv2d" for aten.conv2d.default."""
    parts = str(node.target).split(".")
    return parts[1] if len(parts) > 2 else getattr(node.target, "__name__", parts[0])


def _mutates(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable)
