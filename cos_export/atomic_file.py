"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cos_export.errors import InputError

__all__ = ["atomic_write", "umask"]


def umask() -> int:
    """The permission bits that new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Lends a temporary path beside `path`, and moves what was written there into place at the end.

    The move is atomic because both are in one folder. If the body raises, the temporary file is removed
    and whatever was at `path` stays as it was.

    Args:
        path: Where the file is to be.

    Yields:
        Where to write it first. No file is there yet.

    Raises:
        InputError: The folder is not there, `path` is a folder, or the file cannot be written.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"{target} cannot be written: there is no folder {target.parent}.")
    if target.is_dir():
        raise InputError(f"{target} cannot be written: it is a folder.")
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield draft
        # Some writers make files for their user alone; what is exported is to be read like any other file.
        draft.chmod(0o666 & ~umask())
        draft.replace(target)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
