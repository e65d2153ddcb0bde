"""From a module to a graph of ATen operators, and from a node of it back to the user's source."""

from __future__ import annotations

import copy
import re
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, export
from torch.export.graph_signature import InputKind

from cos_export.capturing.findings import Finding
from cos_export.errors import InputError

__all__ = ["Traced", "check_example", "module_path", "source_line", "trace"]

# Not 1, which torch.export takes for a constant, and no size that a forward is likely to spell out.
_BATCH = 3
_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent.parent)
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
    """

    graph: fx.Graph
    module: nn.Module
    constants: dict[fx.Node, Tensor]
    input: fx.Node
    batch: str


def check_example(example: ArrayLike | Tensor) -> Tensor:
    """One sample, three times: a model that works for this batch size works for any.

    Raises:
        InputError: The example is not one float32 tensor (batch, ...) of a shape that NIR knows.
    """
    if isinstance(example, tuple | list | dict):
        raise InputError(
            f"The example input is a {type(example).__name__}. A network takes one input: give one tensor (batch, ...)."
        )
    tensor = example.detach().cpu() if isinstance(example, Tensor) else _from_array(np.asarray(example))
    if tensor.dtype != torch.float32:
        raise InputError(f"The example input must be float32, and is {tensor.dtype}. Use example.float().")
    if tensor.ndim not in (2, 3, 4) or tensor.numel() == 0:
        raise InputError(
            "The example input must be (batch, channels, height, width), (batch, channels, length) or "
            f"(batch, features), and has shape {tuple(tensor.shape)}."
        )
    return tensor[:1].expand(_BATCH, *tensor.shape[1:]).clone()


def _from_array(array: np.ndarray[Any, Any]) -> Tensor:
    if array.dtype.kind != "f":
        raise InputError(
            f"The example input must be float32, and is {array.dtype}. Scale it as in training, as floats."
        )
    # numpy makes float64 unless told otherwise; the values of an example do not matter.
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def trace(model: nn.Module, example: Tensor) -> Traced | Finding:
    """Traces a copy of `model` in eval mode, or says why that is not possible.

    Args:
        model: Left as it is.
        example: From `check_example`.
    """
    try:
        module = copy.deepcopy(model).cpu().eval()
    except Exception as error:  # noqa: BLE001 - a module may hold anything
        return Finding("", "copy", None, "", f"it cannot be copied ({_summary(error)})", "keep no graph tensors in it")
    odd = sorted(
        f"{name} ({str(tensor.dtype).removeprefix('torch.')})"
        for name, tensor in module.state_dict().items()
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.dtype != torch.float32
    )
    if odd:
        return Finding("", "weights", None, "", f"not float32: {', '.join(odd)}", "convert it first: model.float()")
    try:
        with torch.no_grad():
            module(example)
    except Exception as error:  # noqa: BLE001 - forward is the user's code
        return Finding(
            "",
            "forward",
            _line_of(error),
            "",
            f"it fails on {_BATCH} copies of the example's first sample, {tuple(example.shape)} ({_summary(error)})",
            "give an example of the shape the model takes; it must take one tensor and any batch size",
        )
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = export(module, (example,), dynamic_shapes=({0: Dim.AUTO},))
    except Exception as error:  # noqa: BLE001 - torch.export raises whatever it meets
        return Finding(
            "",
            "torch.export",
            _line_of(error),
            "",
            f"the model cannot be traced ({_summary(error)})",
            "forward must do the same for every input: no Python branches or loops that depend on values of a tensor, "
            "no .item(), no NumPy",
        )
    return _traced(program, module)


def _traced(program: ExportedProgram, module: nn.Module) -> Traced:
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
    )


def module_path(node: fx.Node) -> str:
    """The path of the submodule that a node comes from, "" for the module itself."""
    stack: dict[str, tuple[str, object]] = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    # A module that is called again is told apart by "@1".
    return re.sub(r"@\d+", "", path)


def source_line(node: fx.Node) -> str | None:
    """The user's line that a node comes from: "file:number: code"."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if _is_users(frame[0])]
    return f"{own[-1][0]}:{own[-1][1]}: {own[-1][2].strip()}" if own else None


def _is_users(file: str) -> bool:
    return not file.startswith((_TORCH, _HERE, "<"))


def _line_of(error: BaseException) -> str | None:
    """The user's line that an exception came through last."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return f"{own[-1].filename}:{own[-1].lineno}: {own[-1].line}" if own else None


def _summary(error: BaseException) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
