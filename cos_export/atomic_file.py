"""Files that are there whole or not at all, whether the process is killed or the disk is full."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cos_export.drafts import draft_beside, remove_abandoned
from cos_export.errors import InputError
from cos_export.storage import flush, resolved, storage_error

__all__ = ["atomic_write", "check_derived_destination", "check_file_destination", "umask"]


def umask() -> int:
    """The permission bits that new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_file_destination(path: str | os.PathLike[str]) -> Path:
    """Where a file is to be written: `path` with its symbolic links followed, so that a link stays a link.

    Raises:
        InputError: The folder is not there or may not be written, or something else than a file is at `path`.
    """
    target = resolved(path)
    try:
        status = target.stat()
    except FileNotFoundError:
        status = None
    except OSError as error:
        raise storage_error(path, error) from error
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} cannot be written: it is a folder. Name a file.")
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} cannot be written: it is a device or a pipe, and not a file.")
    if not target.parent.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {Path(path).parent}.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written: the folder {target.parent} may not be written.")
    if status is not None and not os.access(target, os.W_OK):
        raise InputError(f"{path} cannot be written: the file that is there is protected from writing.")
    return target


def check_derived_destination(path: Path, mark: bytes) -> Path:
    """As `check_file_destination`, of a file that the user has not named: it may replace one of its own kind only.

    Args:
        path: Where the file is to be.
        mark: What stands in the first 2,000 bytes of every file of its kind.

    Raises:
        InputError: Another file is there, or as `check_file_destination`.
    """
    target = check_file_destination(path)
    if target.exists():
        try:
            with target.open("rb") as file:
                begin = file.read(2000)
        except OSError as error:
            raise storage_error(path, error) from error
        if mark not in begin:
            raise InputError(
                f"{path} is to be written, and another file of that name is there, which is not replaced. Move it, or "
                "name another place with --out."
            )
    return target


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Lends a temporary path in a folder beside `path`, and moves what was written there into place at the end.

    The move is atomic because both are on one file system, and it comes after the bytes have reached the disk. If the
    body raises, what it wrote is removed and whatever was at `path` stays as it was. What a process that was killed
    has left of an earlier attempt is removed, too.

    Only Python's own writing may be done in the body: libraries in C have been seen to crash on a full disk.

    Args:
        path: Where the file is to be.

    Yields:
        Where to write it first. No file is there yet.

    Raises:
        InputError: The folder is not there or may not be written, or `path` is not a file.
        StorageError: The disk is full, or failed.
    """
    target = check_file_destination(path)
    remove_abandoned(target)
    try:
        with draft_beside(target) as draft:
            file = draft / target.name
            yield file
            # Some writers make files for their user alone; what is exported is to be read like any other file.
            file.chmod(0o666 & ~umask())
            flush(file)
            file.replace(target)
            flush(target.parent)
    except OSError as error:
        raise storage_error(path, error) from error
