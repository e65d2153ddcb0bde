"""Pictures that a user asks for as files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from cos_export.atomic_file import atomic_write, check_file_destination
from cos_export.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_picture_destination", "save_picture"]


def check_picture_destination(path: Path) -> None:
    """Refuses a place where no picture can be written, before any work.

    Raises:
        InputError: The name does not end in .png, or the folder does not exist.
    """
    if path.suffix != ".png":
        raise InputError(f"Pictures are drawn as .png, and {path} ends otherwise.")
    check_file_destination(path)


def save_picture(path: Path, figure: Figure) -> Path:
    """Writes a figure as .png, whole or not at all.

    Raises:
        InputError: The file cannot be written there, or does not end in .png.
    """
    check_picture_destination(path)
    picture = io.BytesIO()
    # Without the software's version it repeats to the byte.
    figure.savefig(picture, format="png", dpi=120, metadata={"Software": None})
    with atomic_write(path) as draft:
        draft.write_bytes(picture.getbuffer())
    return path
