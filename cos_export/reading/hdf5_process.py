"""Reads HDF5 files in a process of its own, which may crash, hang or ask for memory without harm."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from cos_export.errors import InputError
from cos_export.reading import hdf5_program
from cos_export.reading.hdf5_content import RefusedContentError, most_bytes, open_content, pieces
from cos_export.reading.plain_file import check_plain_file

__all__ = ["Hdf5Process", "Tree", "read_own", "read_tree"]

Tree = dict[str, Any]
"""By name: an array, a number, a string, an object array of strings, or another tree."""

_LARGEST_HEADER = 1 << 28
_SECONDS = 60
"""Until a process that has stopped is given up; one that computes is ended by its own limit, in a few seconds."""


class Hdf5Process:
    """A process that reads HDF5 files, one after another; it starts with the first, and again after one that ended it.

    Use it in a `with` statement. `read_tree` starts one for a single file.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def read(self, path: Path, group: str) -> Tree:
        """Everything below a group at the root of a file.

        Args:
            path: The file.
            group: The group's name.

        Raises:
            InputError: It is not a file, or holds something that is not accepted (see `hdf5_content`), or the process
                that read it ended.
        """
        check_plain_file(path)
        process = self._process = self._process or _start()
        most = most_bytes(path)
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            process.kill()

        deadline = threading.Timer(_SECONDS + most / 20e6, stop)
        deadline.start()
        try:
            return _receive(process, path, group, most)
        except RefusedContentError as error:
            raise InputError(f"{path} is not a NIR file: {error}.") from None
        except (EOFError, BrokenPipeError):
            how = "takes too long" if stopped.is_set() else _ending(process)
            self._end()
            raise InputError(f"{path} is not a NIR file: it is damaged, and reading it {how}.") from None
        except BaseException:
            # An answer that was left half-read would be taken for the next one.
            self._end()
            raise
        finally:
            deadline.cancel()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def read_tree(path: Path, group: str) -> Tree:
    """Everything below a group of an HDF5 file, whoever has written it; as `Hdf5Process.read`."""
    with Hdf5Process() as process:
        return process.read(path, group)


def read_own(path: Path, group: str) -> Tree:
    """As `read_tree`, in this process: for a file that this process has just written itself.

    Raises:
        InputError: It holds something that is not accepted.
    """
    try:
        with h5py.File(path, "r") as file:
            content = open_content(file, group, most_bytes(path))
            arrays = [np.concatenate([piece.reshape(-1) for piece in pieces(data)]) for data in content.sets]
    except (OSError, RefusedContentError) as error:
        raise InputError(f"{path} is not a NIR file: {error}.") from error
    return _tree(content.groups, [(e.path, e.shape, e.dtype, e.text) for e in content.entries], arrays)


def _start() -> subprocess.Popen[bytes]:
    # It finds the h5py and numpy that this process has, and no folder before them; then what it shares with this one.
    folders = [*(entry for entry in sys.path if Path(entry).is_absolute()), str(Path(__file__).resolve().parents[2])]
    environment = dict(os.environ) | {
        "PYTHONPATH": os.pathsep.join(folders),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        # A file may name a filter of a library, which HDF5 would look for and load.
        "HDF5_PLUGIN_PRELOAD": "::",
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-B", hdf5_program.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )


def _receive(process: subprocess.Popen[bytes], path: Path, group: str, most: int) -> Tree:
    if process.stdin is None or process.stdout is None:
        raise EOFError
    process.stdin.write(json.dumps([str(path.absolute()), group]).encode() + b"\n")
    process.stdin.flush()
    header = json.loads(_message(process, b"H", _LARGEST_HEADER))
    entries = [(tuple(path), tuple(shape), dtype, tuple(text)) for path, shape, dtype, text in header["entries"]]
    sizes = [math.prod(shape) * np.dtype(dtype).itemsize for _, shape, dtype, _ in entries if dtype is not None]
    if sum(sizes) > most:  # The process refuses that itself: this answer is none of its.
        raise EOFError
    arrays: list[Any] = []
    for size in sizes:
        array = bytearray()
        while len(array) < size:
            array += _message(process, b"D", size - len(array))
        arrays.append(array)
    return _tree(header["groups"], entries, arrays)


def _message(process: subprocess.Popen[bytes], kind: bytes, most: int) -> bytes:
    """The next message of `kind`."""
    head = _exactly(process, 9)
    size = int.from_bytes(head[1:], "little")
    if head[:1] == b"E" and size < _LARGEST_HEADER:
        raise RefusedContentError(_exactly(process, size).decode("utf-8", "replace"))
    if head[:1] != kind or size > most:
        raise EOFError
    return _exactly(process, size)


def _exactly(process: subprocess.Popen[bytes], size: int) -> bytes:
    body = b"" if process.stdout is None else process.stdout.read(size)
    if len(body) < size:
        raise EOFError
    return body


def _ending(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(1)
    except subprocess.TimeoutExpired:
        return "gives no sense"
    if code == -getattr(signal, "SIGXCPU", code + 1):
        return "takes too long"
    return f"ends in signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"ends with exit code {code}"


def _tree(groups: Any, entries: Any, arrays: list[Any]) -> Tree:
    """The nested tree of what lies flat."""
    tree: Tree = {}
    for path in groups:
        _at(tree, path)
    numbers = iter(arrays)
    for path, shape, dtype, text in entries:
        if dtype is not None:
            array: Any = np.ndarray(shape, dtype, buffer=next(numbers))
            value: Any = array[()] if not shape else array
        else:
            value = text[0] if not shape else _words(text, shape)
        _at(tree, path[:-1])[path[-1]] = value
    return tree


def _words(text: tuple[str, ...], shape: tuple[int, ...]) -> Any:
    array = np.empty(len(text), object)
    array[:] = text
    return array.reshape(shape)


def _at(tree: Tree, path: Any) -> Tree:
    for name in path:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, Mapping):
            raise RefusedContentError(f"{name!r} is both a group and a data set")
    return tree
