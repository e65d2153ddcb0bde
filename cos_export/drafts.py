"""What is being written, under a hidden name beside its destination until it is whole; and temporary folders.

A draft and a temporary folder are locked for as long as their process lives, so what a kill has left can be told from
what is in use, and the next run removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

__all__ = ["abandoned", "draft_beside", "locked", "remove_abandoned", "temporary_folder"]

_SUFFIX = ".part"


@contextmanager
def draft_beside(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, on the same file system, from where a move to `target` is atomic.

    It is removed at the end of the block, also where Ctrl-C comes in the middle of that.
    """
    with _locked_folder(target.parent, _prefix(target), 0o777) as path:
        yield path


@contextmanager
def temporary_folder(kind: str) -> Iterator[Path]:
    """An empty folder where TMPDIR says, for this user alone, which is removed at the end of the block.

    Those of its kind that runs have left which were killed are removed first.

    Args:
        kind: What is in it: cos-export-KIND-* it is called.
    """
    parent, prefix = Path(tempfile.gettempdir()), f"cos-export-{kind}-"
    with _abandoned(parent, prefix) as folders:
        for path in folders:
            shutil.rmtree(path, ignore_errors=True)
    with _locked_folder(parent, prefix, 0o700) as path:
        yield path


@contextmanager
def _locked_folder(parent: Path, prefix: str, mode: int) -> Iterator[Path]:
    handle, path = None, parent
    try:
        while handle is None:
            path = parent / f"{prefix}{secrets.token_hex(4)}{_SUFFIX}"
            path.mkdir(mode)
            handle = _owned(path)
        yield path
    finally:
        try:
            _remove(path, parent)
        except KeyboardInterrupt:
            _remove(path, parent)
            raise
        finally:
            if handle is not None:
                with contextlib.suppress(OSError):  # A network's file system may tell of a full disk once more.
                    os.close(handle)


def _owned(path: Path) -> int | None:
    """The locked handle of a folder of ours; None if another process took it for abandoned before it was locked."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    if not _lock(handle, wait=True) or _is_at(handle, path):
        return handle
    os.close(handle)
    return None


def _remove(path: Path, parent: Path) -> None:
    if path != parent:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def abandoned(target: Path) -> Iterator[list[Path]]:
    """The drafts of `target` whose processes have ended, locked by this one until the block is left."""
    with _abandoned(target.parent, _prefix(target)) as drafts:
        yield drafts


@contextmanager
def _abandoned(parent: Path, prefix: str) -> Iterator[list[Path]]:
    handles, drafts = [], []
    name = re.compile(rf"{re.escape(prefix)}[0-9a-f]{{8}}{re.escape(_SUFFIX)}")
    try:
        for path in _listed(parent):
            if not name.fullmatch(path.name) or path.is_symlink():
                continue
            try:
                handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            except OSError:  # Another process has finished or removed it, or it is not ours to read.
                continue
            handles.append(handle)
            if _lock(handle, wait=False) and _is_at(handle, path):
                drafts.append(path)
        yield drafts
    finally:
        for handle in handles:
            os.close(handle)


def remove_abandoned(target: Path) -> None:
    """Removes the drafts of `target` whose processes have ended."""
    with abandoned(target) as drafts:
        for path in drafts:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes of ours out of a folder for a moment, where its file system has locks."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # A folder that may be written and not be read.
        yield
        return
    try:
        _lock(handle, wait=True)
        yield
    finally:
        os.close(handle)


def _prefix(target: Path) -> str:
    # Of a fixed length, for the name of the target may be as long as a name can be.
    return f".cos-export-{blake2b(os.fsencode(target.name), digest_size=4).hexdigest()}-"


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _lock(handle: int, *, wait: bool) -> bool:
    """Whether the lock was had: not while another process has it, nor where the file system knows no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except OSError:
        return False
