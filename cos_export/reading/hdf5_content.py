"""What an HDF5 file holds, as plain numbers and text: checked whole before anything of it is read.

Accepted are groups and data sets of numbers and UTF-8 text that lie in the file itself, each at one place. Refused
before they are followed: links to other files or places, external raw storage, virtual data sets, references, compound,
opaque and enumerated types, sizes beyond what the file's own size allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_OBJECTS", "Content", "Entry", "RefusedContentError", "most_bytes", "open_content", "pieces"]

_FILTERS = frozenset(
    getattr(h5py.h5z, f"FILTER_{name}") for name in ("DEFLATE", "SHUFFLE", "FLETCHER32", "LZF", "SZIP")
)
_DEPTH = 16
_MEMBERS = 10_000
"""Members of one group, so also nodes of a graph: ten times those of the deepest published networks."""
MOST_OBJECTS = 100_000
"""Groups and data sets of one file."""
_TEXT = 1 << 20
"""Bytes of one string."""
_PIECE = 1 << 24
"""Bytes that are read at once, unless the chunks of a data set are larger."""


class RefusedContentError(Exception):
    """The file holds something that is not accepted; the message says what and where."""


@dataclass(frozen=True)
class Entry:
    """A data set: where it is, and either its text or what numbers it holds.

    Attributes:
        path: The names on the way to it.
        shape: Its shape.
        dtype: What numpy calls the type of its numbers, in this machine's byte order; None for text.
        text: Its strings, flat, if it holds text.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str | None
    text: tuple[str, ...] = ()


@dataclass
class Content:
    """Everything below a group. The data sets of numbers are still in the file.

    Attributes:
        most: Bytes that all of it may have.
        entries: The data sets, in the order of the file.
        groups: The paths of all groups, so that empty ones are not lost.
        sets: The data sets themselves.
        total: Bytes counted so far.
    """

    most: int
    entries: list[Entry] = field(default_factory=list)
    groups: list[tuple[str, ...]] = field(default_factory=list)
    sets: list[h5py.Dataset] = field(default_factory=list)
    total: int = 0
    seen: set[int] = field(default_factory=set)


def most_bytes(path: Path) -> int:
    """Bytes that the arrays of a file may have: 512 MiB, and 8 times the file. Constant arrays compress that well."""
    return (1 << 29) + 8 * path.stat().st_size


def open_content(file: h5py.File, group: str, most: int) -> Content:
    """Walks a group and checks all that is in it.

    Args:
        file: The open file.
        group: A group at its root.
        most: Bytes that all arrays together may have.

    Raises:
        RefusedContentError: Something is not accepted.
    """
    content = Content(most)
    name = group.encode()
    if name not in list(_members(file.id, ())):
        raise RefusedContentError(f"it has no group {group!r}")
    opened = _open(file.id, file.id.links, name, (group,))
    if not isinstance(opened, h5py.h5g.GroupID):
        raise RefusedContentError(f"{group!r} is not a group")
    _walk(opened, (), content)
    return content


def _members(group: Any, path: tuple[str, ...]) -> Iterator[bytes]:
    if group.get_num_objs() > _MEMBERS:
        raise RefusedContentError(
            f"{_at(path)} has {group.get_num_objs():,} members; at most {_MEMBERS:,} are accepted"
        )
    return iter(group)


def _open(group: Any, links: Any, name: bytes, path: tuple[str, ...]) -> Any:
    if links.get_info(name).type != h5py.h5l.TYPE_HARD:
        raise RefusedContentError(f"{_at(path)} is a link to another file or place, which is not followed")
    return h5py.h5o.open(group, name)


def _walk(group: Any, path: tuple[str, ...], content: Content) -> None:
    address = h5py.h5o.get_info(group).addr
    if address in content.seen:
        raise RefusedContentError(f"{_at(path)} is a group that the file has at another place, too")
    content.seen.add(address)
    content.groups.append(path)
    if len(path) > _DEPTH:
        raise RefusedContentError(f"{_at(path)} lies more than {_DEPTH} groups deep")
    links = group.links
    for raw in _members(group, path):
        here = (*path, _name(raw, path))
        opened = _open(group, links, raw, here)
        if len(content.groups) + len(content.entries) > MOST_OBJECTS:
            raise RefusedContentError(f"it has more than {MOST_OBJECTS:,} groups and data sets")
        if isinstance(opened, h5py.h5g.GroupID):
            _walk(opened, here, content)
        elif isinstance(opened, h5py.h5d.DatasetID):
            _add(opened, here, content)
        else:
            raise RefusedContentError(f"{_at(here)} is neither a group nor a data set")


def _name(raw: bytes, path: tuple[str, ...]) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise RefusedContentError(f"{_at(path)} has a member {raw!r}, whose name is not UTF-8") from None
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise RefusedContentError(f"{_at(path)} has a member {name!r}, which is not a name in HDF5")
    return name


def _at(path: tuple[str, ...]) -> str:
    shown = [name if len(name) <= 80 else f"{name[:77]}..." for name in path[:_DEPTH]]
    return repr("/".join(shown)) if path else "it"


def _add(dataset: Any, path: tuple[str, ...], content: Content) -> None:
    creation = dataset.get_create_plist()
    if creation.get_external_count() or creation.get_layout() not in (
        h5py.h5d.COMPACT,
        h5py.h5d.CONTIGUOUS,
        h5py.h5d.CHUNKED,
    ):
        raise RefusedContentError(f"{_at(path)} has its numbers in another file or data set, which is not followed")
    for number in range(creation.get_nfilters()):
        if creation.get_filter(number)[0] not in _FILTERS:
            raise RefusedContentError(f"{_at(path)} is compressed by a filter other than gzip, szip, shuffle and lzf")
    space = dataset.get_space()
    if space.get_simple_extent_type() == h5py.h5s.NULL:
        raise RefusedContentError(f"{_at(path)} is empty")
    shape = tuple(int(n) for n in space.shape)
    count = math.prod(shape)
    try:
        dtype = dataset.dtype
    except TypeError as error:
        raise RefusedContentError(f"{_at(path)} is of a type that numpy has no name for ({error})") from None
    data = h5py.Dataset(dataset)
    if h5py.check_string_dtype(dtype) is not None:
        if count > MOST_OBJECTS:
            raise RefusedContentError(f"{_at(path)} holds {count:,} texts; at most {MOST_OBJECTS:,} are accepted")
        _grow(content, path, count * dtype.itemsize)
        content.entries.append(Entry(path, shape, None, _text(data, path, content)))
    elif dtype.kind in "biuf" and dtype.itemsize <= 8 and h5py.check_enum_dtype(dtype) is None:
        _check_stored(dataset, creation, path, count * dtype.itemsize, dtype.itemsize)
        _grow(content, path, count * dtype.itemsize)
        content.entries.append(Entry(path, shape, dtype.newbyteorder("=").str))
        content.sets.append(data)
    else:
        raise RefusedContentError(
            f"{_at(path)} is of type {dtype}; only numbers of up to 8 bytes and text are accepted"
        )


def _check_stored(dataset: Any, creation: Any, path: tuple[str, ...], size: int, item: int) -> None:
    """Refuses arrays that the file does not hold: they would be made of nothing, at any size it claims."""
    stored, chunked = dataset.get_storage_size(), creation.get_layout() == h5py.h5d.CHUNKED
    if size and (stored == 0 if chunked else stored < size):
        raise RefusedContentError(f"{_at(path)} claims {size:,} bytes, and the file holds {stored:,} of them")
    if chunked and math.prod(creation.get_chunk()) * item > max(_PIECE, 2 * size):
        raise RefusedContentError(f"{_at(path)} comes in chunks larger than it is")


def _grow(content: Content, path: tuple[str, ...], size: int) -> None:
    content.total += size
    if content.total > content.most:
        raise RefusedContentError(
            f"its arrays up to {_at(path)} claim {content.total:,} bytes, more than {content.most:,}, which is what a "
            "file of its size is taken to hold"
        )


def _text(data: h5py.Dataset, path: tuple[str, ...], content: Content) -> tuple[str, ...]:
    strings: list[str] = []
    values = np.asarray(data[()], object).reshape(-1)
    for value in values:
        raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
        if len(raw) > _TEXT:
            raise RefusedContentError(f"{_at(path)} holds a text of {len(raw):,} bytes; at most {_TEXT:,} are accepted")
        _grow(content, path, len(raw))
        try:
            strings.append(raw.decode())
        except UnicodeDecodeError:
            raise RefusedContentError(f"{_at(path)} holds text that is not UTF-8") from None
    return tuple(strings)


def pieces(data: h5py.Dataset) -> Iterator[NDArray[Any]]:
    """The numbers of a data set in C order and this machine's byte order, a few rows at a time."""
    dtype, shape = data.dtype.newbyteorder("="), data.shape
    if math.prod(shape) * dtype.itemsize <= _PIECE:
        # Past h5py's selections, which take longer than most arrays do.
        whole = np.empty(shape, dtype)
        if whole.size:
            data.id.read(h5py.h5s.ALL, h5py.h5s.ALL, whole)
        yield whole
        return
    step = data.chunks[0] if data.chunks else 1
    rows = step * max(1, _PIECE // max(1, step * data.nbytes // data.shape[0]))
    for start in range(0, data.shape[0], rows):
        yield np.ascontiguousarray(data[start : start + rows], dtype)
