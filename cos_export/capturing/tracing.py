"""From a module to a graph of ATen operators, and from a node of it back to the user's source."""

from __future__ import annotations

import copy
import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, export
from torch.export.graph_signature import InputKind

from cos_export.capturing.data_access import data_access
from cos_export.capturing.findings import Finding
from cos_export.capturing.recognition import Recognition, recognise_activations
from cos_export.capturing.repeatability import unrepeatable
from cos_export.datasets import Images, image_array, in_memory
from cos_export.errors import InputError
from cos_export.user_code import exits_raise, is_users, line_of, summary

__all__ = [
    "PART_OF",
    "REPLACED",
    "Traced",
    "check_example",
    "has_module",
    "module_path",
    "named_arguments",
    "operation",
    "operation_path",
    "source_line",
    "trace",
]

REPLACED = "cos_export_replaced"
"""In a node's meta: the operation that stood there before it was replaced."""

PART_OF = "cos_export_part_of"
"""In a node's meta: the operation that it is a part of, which was written as several."""

# Not 1, which torch.export takes for a constant, and no size that a forward is likely to spell out.
_BATCH = 3
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in .*\n\s*(?P<code>.*)')


@dataclass(frozen=True)
class Traced:
    """A module as a graph.

    Attributes:
        graph: ATen operators, in the order in which they run.
        module: The copy that was traced, in eval mode.
        constants: Parameters, buffers and other tensors, by the placeholders that stand for them.
        input: The placeholder of the input.
        batch: The batch axis as shapes spell it: a symbol, or a number if forward asks for it as len(x) does.
        recognition: The user's own activations that were taken for QCFS, or nearly.
        left_out: The operations at the end that were taken off the graph (`cos_export.capturing.tail`).
    """

    graph: fx.Graph
    module: nn.Module
    constants: dict[fx.Node, Tensor]
    input: fx.Node
    batch: str
    recognition: Recognition
    left_out: tuple[fx.Node, ...] = ()


def check_example(example: Images) -> Tensor:
    """One sample, three times: a model that works for this batch size works for any.

    Raises:
        InputError: The example is not one tensor of images (batch, ...) of a shape that NIR knows.
    """
    if isinstance(example, tuple | list | dict):
        raise InputError(
            f"The example input is a {type(example).__name__}. A network takes one input: give one tensor (batch, ...)."
        )
    tensor = torch.from_numpy(in_memory(image_array(example, what="The example input")))
    if tensor.ndim not in (2, 3, 4) or tensor.numel() == 0:
        raise InputError(
            "The example input must be (batch, channels, height, width), (batch, channels, length) or "
            f"(batch, features), and has shape {tuple(tensor.shape)}."
        )
    return tensor[:1].expand(_BATCH, *tensor.shape[1:]).clone()


def trace(model: nn.Module, example: Tensor, levels: int | None = None) -> Traced | Finding:
    """Traces a copy of `model` in eval mode, or says why that is not possible.

    Args:
        model: Left as it is.
        example: From `check_example`.
        levels: L of the user's own quantised activations that do not say it.
    """
    try:
        with exits_raise():
            module = copy.deepcopy(model).cpu().eval()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a module may hold anything
        return Finding("", "copy", None, "", f"it cannot be copied ({summary(error)})", "keep no graph tensors in it")
    odd = sorted(
        f"{name} ({str(tensor.dtype).removeprefix('torch.')})"
        for name, tensor in module.state_dict().items()
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.dtype != torch.float32
    )
    if odd:
        return Finding("", "weights", None, "", f"not float32: {', '.join(odd)}", "convert it first: model.float()")
    try:
        with exits_raise(), torch.no_grad():
            module(example)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - forward is the user's code
        return Finding(
            "",
            "forward",
            line_of(error),
            "",
            f"it fails on {_BATCH} copies of the example's first sample, {tuple(example.shape)} ({summary(error)})",
            "give an example of the shape the model takes; it must take one tensor and any batch size",
        )
    if (finding := unrepeatable(model, example)) is not None:
        return finding
    recognition = recognise_activations(module, levels)
    try:
        with _quiet(), exits_raise(), torch.no_grad():
            program = export(module, (example,), dynamic_shapes=({0: Dim.AUTO},))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - torch.export raises whatever it meets
        if _depends_on_data(error):
            return Finding(
                "",
                "torch.export",
                line_of(error),
                "",
                "forward reads the value of a tensor, such as a threshold of its own, to choose what it does",
                "do the same for every input; a threshold belongs into an activation: cos_export.QCFS, "
                "nn.Hardtanh(0, b), or a module of its own that computes clip(z, 0, threshold), which is recognised",
            )
        if "fake tensor" in str(error) and (finding := data_access(model, example)) is not None:
            return finding
        return Finding(
            "",
            "torch.export",
            line_of(error),
            "",
            f"the model cannot be traced ({summary(error)})",
            "forward must do the same for every input: no Python branches or loops that depend on values of a tensor, "
            "no .item(), no NumPy, no sparse tensors, no TorchScript",
        )
    return _traced(program, module, recognition)


def _depends_on_data(error: BaseException) -> bool:
    # It brings SymPy along, half a second of every command's start: torch.export has imported it, if anything has.
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    return isinstance(error, GuardOnDataDependentSymNode)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch.export from printing graphs and warnings: what is wrong is told in a finding."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)


def _traced(program: ExportedProgram, module: nn.Module, recognition: Recognition) -> Traced:
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    constants: dict[fx.Node, Tensor] = {}
    inputs = []
    for spec in program.graph_signature.input_specs:
        node = placeholders[spec.arg.name]
        if spec.kind == InputKind.USER_INPUT:
            inputs.append(node)
            continue
        held = program.state_dict.get(str(spec.target), program.constants.get(str(spec.target)))
        if isinstance(held, Tensor):
            constants[node] = held
    return Traced(
        graph=program.graph,
        module=module,
        constants=constants,
        input=inputs[0],
        batch=str(inputs[0].meta["val"].shape[0]),
        recognition=recognition,
    )


def operation(node: fx.Node) -> str:
    """What PyTorch calls the operation: "conv2d" for aten.conv2d.default; of a replaced one, what it was."""
    for key in (REPLACED, PART_OF):
        if key in node.meta:
            return str(node.meta[key])
    parts = str(node.target).split(".")
    return parts[1] if len(parts) > 2 else getattr(node.target, "__name__", parts[0])


def operation_path(traced: Traced, node: fx.Node) -> tuple[str, bool]:
    """The path of the submodule that a node comes from, and whether that module is this operation alone."""
    path = module_path(node)
    if not path:
        return path, False
    try:
        return path, not any(True for _ in traced.module.get_submodule(path).children())
    except AttributeError:
        # A program that was exported before keeps the paths, and no longer the modules: their types must do.
        _, kind = next(reversed(node.meta["nn_module_stack"].values()))
        return path, str(getattr(kind, "__module__", kind)).startswith("torch.nn.")


def has_module(traced: Traced, path: str) -> bool:
    """Whether the module has a submodule at `path`, called or not."""
    try:
        traced.module.get_submodule(path)
    except AttributeError:
        return False
    return True


def named_arguments(node: fx.Node) -> dict[str, Any]:
    """A call's arguments by the names of the operator's schema, defaults filled in; none if it has no schema."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {}
    given = {entry.name: value for entry, value in zip(schema.arguments, node.args, strict=False)} | dict(node.kwargs)
    return {entry.name: given.get(entry.name, entry.default_value) for entry in schema.arguments}


def module_path(node: fx.Node) -> str:
    """The path of the submodule that a node comes from, "" for the module itself."""
    stack: dict[str, tuple[str, object]] = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    # A module that is called again is told apart by "@1".
    return re.sub(r"@\d+", "", path)


def source_line(node: fx.Node) -> str | None:
    """The user's line that a node comes from: "file:number: code"."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if is_users(frame[0])]
    return f"{own[-1][0]}:{own[-1][1]}: {own[-1][2].strip()}" if own else None
