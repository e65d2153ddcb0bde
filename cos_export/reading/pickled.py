"""What a pickle would build, worked out from its instructions before anybody follows them.

torch.load with weights_only runs no code of a file's, but it builds what the instructions say, and they can say much in
few bytes: a tuple of twice a tuple of twice ... is one object, and whoever hashes, prints or walks through it goes 2^n
ways. So each object is counted with all that it holds, as often as it holds it.
"""

from __future__ import annotations

import pickletools
import tarfile
from collections.abc import Iterator
from io import BytesIO
from typing import IO, Any

from cos_export.errors import InputError

__all__ = ["MOST_INSTRUCTION_BYTES", "check_pickle", "check_pickles"]

_MOST_VALUES = 4_000_000
"""Values that an object may hold; a tensor's description has about 25, so it is the state of a large optimiser."""

_MOST_INSTRUCTIONS = 2_000_000
"""In one pickle; a tensor takes about 50."""

MOST_INSTRUCTION_BYTES = 1 << 25
"""Of a pickle: beyond that are texts or numbers, and no description of tensors."""

_GROWN = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})
"""Instructions that put into the lowest object that they take what they take above it."""

_REFUSED = frozenset({"builtins bytearray", "__builtin__ bytearray"})
"""Callables that torch knows, which take as much memory as a number in the file says."""

_LEGACY = 5
"""Pickles at the start of a file of torch.save before version 1.6: three about the format, the object, its storages."""


def check_pickles(file: IO[bytes], path: str) -> None:
    """Refuses a file of torch.save's older format, several pickles in a row, if one of them would build too much.

    Raises:
        InputError: It would, or it is a tar archive, as torch wrote before version 0.1.10.
    """
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:"):
            raise InputError(
                f"{path} is a tar archive, of a torch before version 0.1.10. Load and save it in a newer one."
            )
    except (tarfile.TarError, EOFError, ValueError, OSError):
        file.seek(0)
    # Whoever is told to read 2^60 bytes of a file makes room for them first.
    start = BytesIO(file.read(MOST_INSTRUCTION_BYTES))
    for _ in range(_LEGACY):
        if not start.read(1):
            return
        start.seek(-1, 1)
        _check(start, path)


def check_pickle(content: bytes, path: str) -> None:
    """Refuses a pickle that would build too much.

    Raises:
        InputError: It would, or it is damaged.
    """
    _check(BytesIO(content), path)


def _check(stream: IO[bytes], path: str) -> None:
    try:
        held = _objects(stream, path)
    except (ValueError, IndexError, KeyError, UnicodeError, OverflowError, AttributeError, MemoryError) as error:
        raise InputError(
            f"{path} cannot be read as plain weights: its instructions are damaged ({type(error).__name__})."
        ) from error
    if _largest(held) > _MOST_VALUES:
        raise InputError(
            f"{path} holds an object of more than {_MOST_VALUES:,} values, or one that holds itself, and a state dict "
            "holds names and tensors: torch.save(model.state_dict(), path)."
        )


def _objects(stream: IO[bytes], path: str) -> list[list[int]]:
    """Each object by its number, with the numbers of those that it holds."""
    held: list[list[int]] = []
    memo: dict[int, int] = {}
    stack: list[int | None] = []  # None is a mark
    for count, (code, argument, _) in enumerate(pickletools.genops(stream)):
        if count > _MOST_INSTRUCTIONS:
            raise InputError(f"{path} has more than {_MOST_INSTRUCTIONS:,} instructions, which no state dict needs.")
        name = code.name
        if name == "GLOBAL" and argument in _REFUSED:
            raise InputError(f"{path} holds a bytearray, and a state dict holds tensors, numbers and text.")
        if name == "MARK":
            stack.append(None)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else int(argument or 0)] = _object(stack[-1])
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[int(argument or 0)])
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            taken = list(_taken(code, stack))
            if name in _GROWN:
                held[taken[0]] += taken[1:]
                stack.append(taken[0])
            elif code.stack_after:
                held.append(taken)
                stack.append(len(held) - 1)
    return held


def _taken(code: Any, stack: list[int | None]) -> Iterator[int]:
    """What an instruction takes from the stack, the lowest first."""
    before = code.stack_before
    if pickletools.markobject in before:
        mark = len(stack) - 1 - stack[::-1].index(None)
        start = mark - before.index(pickletools.markobject)
        taken = stack[start:mark] + stack[mark + 1 :]
    else:
        start = len(stack) - len(before)
        taken = stack[start:]
    if start < 0:
        raise IndexError
    del stack[start:]
    for entry in taken:
        yield _object(entry)


def _object(entry: int | None) -> int:
    if entry is None:
        raise ValueError("a mark where an object must be")
    return entry


def _largest(held: list[list[int]]) -> int:
    """How many values the largest object holds, itself included, each as often as it is held.

    If one holds itself, or too many, this is beyond the limit, and the others are not looked at.
    """
    sizes: list[int] = [0] * len(held)  # 0 is not known yet, -1 is being added up
    for root in range(len(held)):
        pending = [] if sizes[root] else [root]
        while pending:
            number = pending[-1]
            if sizes[number] == 0:
                sizes[number] = -1
                for part in held[number]:
                    if sizes[part] == -1:
                        return _MOST_VALUES + 1
                    if sizes[part] == 0:
                        pending.append(part)
            else:
                pending.pop()
                if sizes[number] == -1:
                    size = 1 + sum(sizes[part] for part in held[number])
                    if size > _MOST_VALUES:
                        return size
                    sizes[number] = size
    return max(sizes, default=0)
