"""What a CUDA graph does, on the CPU: operations recorded with their memory and their scalars, and done again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "lift_fresh"}
"""Operations that make a host wait for its GPU, or that copy what the host has made."""


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps each operation with its arguments, Python numbers as they are at that moment, and its results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Any]]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, dict(kwargs or {}), tree_leaves(result)))
        return result

    def waits(self) -> list[str]:
        """The names of operations on which a host would wait."""
        names = [function.overloadpacket.__name__ for function, *_ in self.calls]
        return [name for name in names if name in WAITS]

    def again(self) -> None:
        """Does all of them again, into the same memory."""
        with torch.no_grad():
            for function, args, kwargs, results in self.calls:
                for result, new in zip(results, tree_leaves(function(*args, **kwargs)), strict=True):
                    if isinstance(result, Tensor) and result.data_ptr() != new.data_ptr():
                        result.copy_(new)


class ReplayedOperations:
    """A `Recorder` for the CPU.

    Args:
        state: What the work changes: recording leaves it as it was.
        fails: What is raised in the middle of the record, if anything.
        stale: Whether what is replayed is not what was recorded: the first half of it alone.
    """

    def __init__(
        self, state: Callable[[], Sequence[Tensor]], *, fails: BaseException | None = None, stale: bool = False
    ) -> None:
        self._state, self._fails, self._stale = state, fails, stale
        self.plain = self.recorded = self.replayed = 0

    def aside(self, work: Callable[[], None]) -> None:
        self.plain += 1
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        before = [tensor.clone() for tensor in self._state()]
        operations = Operations()
        with operations:
            work()
        if self._fails is not None:
            raise self._fails  # What the work has changed stays changed.
        with torch.no_grad():
            for tensor, value in zip(self._state(), before, strict=True):
                tensor.copy_(value)
        self.recorded += 1
        if self._stale:
            del operations.calls[len(operations.calls) // 2 :]

        def replay() -> None:
            self.replayed += 1
            operations.again()

        return replay
