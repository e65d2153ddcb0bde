"""Whether forward computes the same from the same input each time it is called, which a graph of it does.

What leaves an operator in the graph (torch.rand, dropout) is judged there. A number that Python or NumPy draws, and a
counter that forward keeps, leave nothing but their value: so forward is run and every operation's arguments are written
down, once in a copy of the module, again in the same copy, and in another copy with Python's and NumPy's generators
seeded otherwise. PyTorch's generator starts alike in all three.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cos_export.capturing.data_access import DataWatch
from cos_export.capturing.findings import Finding
from cos_export.user_code import Place, calling_place, exits_raise, line_at

__all__ = ["unrepeatable"]

_RELATIVE = 1e-5
"""Sums of the same numbers may be taken in another order; what is drawn anew differs by far more."""

_PART = 2**16
"""Entries that are weighted at once: what the processor keeps at hand."""

_WEIGHTS = torch.arange(1, _PART + 1, dtype=torch.float64).cos_()

Digest = tuple[float, float]
"""A weighted sum of a tensor's entries, which sees their order, and the sum of their magnitudes."""


@dataclass(frozen=True)
class _Operation:
    """One operation that ran: its name, the module it ran in, its numbers and tensors, and the user's line."""

    name: str
    path: str
    numbers: tuple[str, ...]
    tensors: tuple[Digest, ...]
    place: Place | None = None


def unrepeatable(model: nn.Module, example: Tensor) -> Finding | None:
    """A finding that blocks if `model` does not compute the same twice, or sets the .data of a tensor.

    Args:
        model: Left as it is; it runs on `example`.
        example: An input.
    """
    one, other = (copy.deepcopy(model).cpu().eval() for _ in range(2))
    tensors = {name: tensor.clone() for name, tensor in _tensors(one)}
    watch = DataWatch()
    try:
        with exits_raise():
            with watch:
                first = _record(one, example, 0)
            with torch.no_grad():
                # What forward writes into buffers and parameters is seen in the graph.
                for name, tensor in _tensors(one):
                    if name in tensors and tensor.shape == tensors[name].shape:
                        tensor.copy_(tensors[name])
            second, elsewhere = _record(one, example, 0), _record(other, example, 1)
    except (Exception, SystemExit):  # noqa: BLE001 - what forward raises, and what can't be recorded, torch.export tells
        return None
    if watch.set is not None:
        # Nothing in the graph tells of it.
        return watch.finding()
    if (drawn := _difference(first, elsewhere)) is not None:
        return Finding(
            drawn.path,
            drawn.name,
            line_at(drawn.place),
            "",
            "it does not get the same numbers when forward runs again on the same input: they are drawn at random, or "
            "kept from call to call outside of the module; a capture would keep those of one call",
            "draw random numbers in training mode only (if self.training: ...), and keep no state between calls",
        )
    # Forward may do less the second time, such as where it keeps a table that it has made: then the result decides.
    same_steps = [step.name for step in first] == [step.name for step in second]
    if (kept := _difference(first, second) if same_steps else _difference(first[-1:], second[-1:])) is not None:
        return Finding(
            kept.path,
            kept.name,
            line_at(kept.place),
            "",
            "forward keeps state between calls: the second call on the same input computes something else",
            "keep no counters and no earlier values that the result depends on, or use them in training mode only",
        )
    return None


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    held = [*module.named_parameters(), *module.named_buffers()]
    return [(name, tensor) for name, tensor in held if not is_lazy(tensor)]


def _record(module: nn.Module, example: Tensor, seed: int) -> list[_Operation]:
    """The operations of one call in the order in which they run, and last what comes out."""
    recorder = _Recorder()
    hooks = []
    for path, part in module.named_modules():
        hooks.append(part.register_forward_pre_hook(recorder.entering(path), prepend=True))
        hooks.append(part.register_forward_hook(recorder.leaving, always_call=True))
    try:
        with _seeded(seed), torch.no_grad():
            given = example.clone()
            with recorder:
                result = module(given)
    finally:
        for hook in hooks:
            hook.remove()
    return [*recorder.operations, _Operation("forward", "", (), _digests(result))]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Python's and NumPy's generators seeded, PyTorch's always alike; afterwards all are as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down every operation that runs, and in which module."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[_Operation] = []
        self._paths = [""]

    def entering(self, path: str) -> Any:
        """A hook for the module at `path`, before it runs."""

        def enter(*_: object) -> None:
            self._paths.append(path)

        return enter

    def leaving(self, *_: object) -> None:
        """A hook for any module, after it has run."""
        self._paths.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Notes an operation with what it is given, then runs it."""
        given = (args, kwargs or {})
        numbers = tuple(repr(leaf) for leaf in tree_leaves(given) if isinstance(leaf, int | float))
        name = str(func).split(".")[1]
        self.operations.append(_Operation(name, self._paths[-1], numbers, _digests(given), calling_place()))
        result = func(*args, **(kwargs or {}))
        if name.startswith(("empty", "new_empty")):
            # What memory holds that nobody has written yet differs from call to call, and nobody may read it.
            result.zero_()
        return result


def _digests(values: Any) -> tuple[Digest, ...]:
    return tuple(_digest(leaf) for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _digest(tensor: Tensor) -> Digest:
    if tensor.layout != torch.strided or tensor.is_complex() or tensor.numel() == 0:
        return 0.0, 0.0
    weighted = size = 0.0
    for i, part in enumerate(torch.split(tensor.detach().flatten(), _PART)):
        values = part.to(torch.float64)
        weighted += math.cos(i) * float(values @ _WEIGHTS[: len(values)])
        size += float(torch.linalg.vector_norm(values, 1))
    return weighted, size


def _difference(one: list[_Operation], other: list[_Operation]) -> _Operation | None:
    """The first operation of `one` that is not the same in `other`."""
    for i, step in enumerate(one):
        if i >= len(other) or not _alike(step, other[i]):
            return step
    return other[len(one)] if len(other) > len(one) else None


def _alike(one: _Operation, other: _Operation) -> bool:
    if (one.name, one.numbers, len(one.tensors)) != (other.name, other.numbers, len(other.tensors)):
        return False
    close = (
        np.isclose(a, b, rtol=0.0, atol=_RELATIVE * max(size, other_size), equal_nan=True)
        for (a, size), (b, other_size) in zip(one.tensors, other.tensors, strict=True)
    )
    return all(map(bool, close))
