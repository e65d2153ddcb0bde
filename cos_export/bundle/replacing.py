"""Puts a folder in place whole or not at all, and takes nothing away but an earlier one of its kind."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cos_export.bundle.file_names import MANIFEST
from cos_export.drafts import abandoned, draft_beside, locked
from cos_export.errors import InputError, StorageError
from cos_export.reading.json_file import read_json
from cos_export.storage import existing_ancestor, flush, is_utf8, resolved, storage_error

__all__ = ["BUNDLE", "FolderKind", "check_destination", "replacing_folder"]

_NEW, _EARLIER = "new", "earlier"
"""The two folders of a draft: the one to come, and that which it replaces."""

_AT_WORKING_FOLDER, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_NAMED = 3


@dataclass(frozen=True)
class FolderKind:
    """What a folder is that may be replaced.

    Attributes:
        what: What it is called in messages.
        listed: The names of all files that such a folder may hold, read from the folder; none if it is not one.
    """

    what: str
    listed: Callable[[Path], set[str]]


def _listed_in_manifest(folder: Path) -> set[str]:
    """The names that the manifest of a bundle of any version lists, with its own; none if there is no such manifest."""
    try:
        manifest = read_json(folder / MANIFEST, links=False)
    except InputError:
        return set()
    if not isinstance(manifest, dict) or not str(manifest.get("format", "")).startswith("cos-export-bundle/"):
        return set()
    files = manifest.get("files")
    return {MANIFEST, *(files if isinstance(files, dict) else ())}


BUNDLE = FolderKind("bundle", _listed_in_manifest)
"""The folder that an export writes."""


def check_destination(path: str | os.PathLike[str], kind: FolderKind = BUNDLE) -> Path:
    """Refuses a place where a folder cannot be put, or only by taking away what is not part of an earlier one.

    If a process was killed while it replaced the folder there, its draft is removed, and the earlier one is put
    back where the kill came between the two.

    Args:
        path: Where the folder is to be. A symbolic link is followed, and stays a link.
        kind: What it is, and an earlier one there.

    Returns:
        The absolute path, without links.

    Raises:
        InputError: It is not a folder, or holds files that no manifest lists, or is a mount point or the folder that
            the process works in; or a folder above it is not there to be written; or a bundle's path is not UTF-8.
    """
    destination = resolved(path)
    if kind is BUNDLE and not is_utf8(str(destination)):
        raise InputError(
            f"{path} cannot be a {kind.what}: its name or that of a folder above is not UTF-8, and ONNX Runtime opens "
            "no other. Name another place."
        )
    if Path.cwd().is_relative_to(destination):
        raise InputError(
            f"{str(path)!r} is the folder that this command runs in, or holds it, and is not to be replaced. "
            f"Name a folder for the {kind.what}, as {Path(path) / kind.what}."
        )
    _recover(destination)
    if not os.path.lexists(destination):
        above = existing_ancestor(destination)
        if not above.is_dir():
            raise InputError(f"{path} cannot be written: {above} is a file, and not a folder.")
        if not os.access(above, os.W_OK | os.X_OK):
            raise InputError(f"{path} cannot be written: the folder {above} may not be written.")
        return destination
    if not destination.is_dir():
        raise InputError(f"{path} is a file. Name a folder for the {kind.what}.")
    if destination.is_mount():
        raise InputError(
            f"{path} is a mount point, which cannot be replaced in one step. Name a folder in it, as "
            f"{Path(path) / kind.what}."
        )
    for folder in (destination, destination.parent):
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise InputError(f"{path} cannot be replaced: the folder {folder} may not be read or written.")
    _check_holds_its_kind_alone(destination, path, kind)
    return destination


@contextmanager
def replacing_folder(path: str | os.PathLike[str], kind: FolderKind = BUNDLE) -> Iterator[Path]:
    """A folder beside `path` that takes its place when the block ends, and vanishes if it fails.

    The two are exchanged in one step where the system can (Linux), and whoever else writes to `path` comes before or
    after. Elsewhere `path` is missing for a moment; a kill in that moment is mended by `check_destination`.

    Raises:
        InputError: As `check_destination`.
        StorageError: The disk is full, or failed.
    """
    destination = check_destination(path, kind)
    with ExitStack() as stack:
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            draft = stack.enter_context(draft_beside(destination))
            new = draft / _NEW
            new.mkdir()
        except OSError as error:
            raise storage_error(path, error) from error
        try:
            yield new
        except Exception as error:
            # Of a file in the draft, whose name means nothing to the user.
            if not new.is_dir():
                raise StorageError(
                    f"{path} cannot be written: the folder that it was written in was removed meanwhile."
                ) from error
            if isinstance(error, StorageError):
                raise StorageError(str(error).replace(str(new), str(path))) from error
            raise
        try:
            for file in new.iterdir():
                flush(file)
            flush(new)
            with locked(destination.parent):
                _take_place(new, destination, draft / _EARLIER, kind)
            flush(destination.parent)
        except OSError as error:
            raise storage_error(path, error) from error


def _take_place(new: Path, destination: Path, earlier: Path, kind: FolderKind) -> None:
    if not os.path.lexists(destination):
        new.rename(destination)
        return
    if not _exchanged(new, earlier, destination):
        try:
            destination.rename(earlier)
            new.rename(destination)
        except BaseException:  # Ctrl-C, too
            if os.path.lexists(earlier) and not os.path.lexists(destination):
                earlier.rename(destination)
            raise
    try:
        _check_holds_its_kind_alone(earlier, destination, kind)
    except InputError:
        # Somebody has put a file there since it was checked.
        destination.rename(new)
        earlier.rename(destination)
        raise


def _exchanged(new: Path, earlier: Path, destination: Path) -> bool:
    """Whether `new` is now at `destination`, and what was there at `earlier`; False if the system cannot do that."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # no Linux, or an old one
        return False
    # What is in the draft has one name throughout, so that a kill in between leaves nothing to be put back.
    arguments = (_AT_WORKING_FOLDER, os.fsencode(new), _AT_WORKING_FOLDER, os.fsencode(destination), _EXCHANGE)
    if rename(*arguments) != 0:
        code = ctypes.get_errno()
        if code in _UNSUPPORTED:
            return False
        raise OSError(code, os.strerror(code), str(destination))
    new.rename(earlier)
    return True


def _recover(destination: Path) -> None:
    """Puts the earlier bundle back if a kill came between its leaving and the coming of the next; removes drafts."""
    with locked(destination.parent), abandoned(destination) as drafts:
        for draft in drafts:
            if (draft / _EARLIER).is_dir() and not os.path.lexists(destination):
                try:
                    (draft / _EARLIER).rename(destination)
                except OSError as error:
                    raise storage_error(destination, error) from error
            shutil.rmtree(draft, ignore_errors=True)


def _check_holds_its_kind_alone(folder: Path, path: str | os.PathLike[str], kind: FolderKind) -> None:
    listed = kind.listed(folder)
    foreign = sorted(
        entry.name for entry in folder.iterdir() if entry.name not in listed or entry.is_symlink() or entry.is_dir()
    )
    if foreign:
        more = f" and {len(foreign) - _NAMED} more" if len(foreign) > _NAMED else ""
        what = f"not part of the {kind.what} there" if listed else f"not a {kind.what}"
        raise InputError(
            f"{path} holds what is {what}, and will not be replaced: {', '.join(foreign[:_NAMED])}{more}. "
            "Name another folder, or move that away."
        )
