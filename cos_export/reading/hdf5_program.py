"""The program that reads HDF5 files: it answers, on its standard output, what each file holds.

libhdf5 does not survive every damaged file: one changed byte may end it in a segmentation fault, in a loop without end
or in gigabytes. So `hdf5_process` runs this module as a program of its own, which imports h5py and numpy and little
else, and which a limit on memory and processor time ends.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import h5py

from cos_export.reading.hdf5_content import MOST_OBJECTS, RefusedContentError, most_bytes, open_content, pieces

__all__: list[str] = []


def _limits() -> Callable[[int, int], None]:
    """A function that limits what this process may take from here on: (bytes, seconds of processor time)."""
    try:
        import resource
    except ImportError:  # Windows: there the deadline of whoever started this process is what is left.
        return lambda size, seconds: None
    pages = Path("/proc/self/statm")  # Linux
    start = int(pages.read_text().split()[0]) * resource.getpagesize() if pages.exists() else 0

    def limit(size: int, seconds: int) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        if start:
            resource.setrlimit(resource.RLIMIT_AS, (start + size, resource.getrlimit(resource.RLIMIT_AS)[1]))
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime) + seconds, hard))

    return limit


def _answer(path: Path, group: str, limit: Callable[[int, int], None], out: BinaryIO) -> None:
    # A busy machine takes a millisecond for a data set, of which half a megabyte holds a thousand at most.
    limit(1 << 28, 2 + min(path.stat().st_size // 500_000, MOST_OBJECTS // 1000))
    # Every chunk is read once: caches of a megabyte for each data set would only fill the memory that is granted.
    with h5py.File(path, "r", rdcc_nbytes=0) as file:
        content = open_content(file, group, most_bytes(path))
        entries = [[entry.path, entry.shape, entry.dtype, entry.text] for entry in content.entries]
        _send(out, b"H", json.dumps({"groups": content.groups, "entries": entries}).encode())
        largest = max((data.nbytes for data in content.sets), default=0)
        limit((1 << 28) + 3 * largest, 2 + content.total // 50_000_000 + len(content.sets) // 1000)
        for data in content.sets:
            for piece in pieces(data):
                # Whoever reads asks for none of an empty array, and would take it for the start of the next answer.
                if piece.size:
                    _send(out, b"D", piece.tobytes())


def _send(out: BinaryIO, kind: bytes, body: bytes) -> None:
    """A message: "H" what there is, in JSON, "D" some of its numbers, or "E" why nothing (more) comes."""
    out.write(kind + len(body).to_bytes(8, "little"))
    out.write(body)


def _serve() -> None:
    """Answers each line of standard input, [path, group] in JSON, until there is none."""
    # What a library prints must not get between the answers.
    out = os.fdopen(os.dup(1), "wb", buffering=1 << 20)
    os.dup2(2, 1)
    limit = _limits()
    for line in sys.stdin.buffer:
        path, group = json.loads(line)
        try:
            _answer(Path(path), group, limit, out)
        except RefusedContentError as error:
            _send(out, b"E", str(error).encode())
        except MemoryError:
            _send(out, b"E", b"reading it takes more memory than what it holds")
        except Exception as error:  # noqa: BLE001 - whatever libhdf5 makes of a damaged file is that file's fault
            _send(out, b"E", f"it cannot be read as HDF5 ({error})".encode("utf-8", "backslashreplace"))
        out.flush()


if __name__ == "__main__":
    _serve()
