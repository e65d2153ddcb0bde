"""Whether an environment still holds what was installed into it."""

from __future__ import annotations

import base64
import csv
import hashlib
from pathlib import Path

__all__ = ["damaged_file"]

_OUTSIDE = ("..", "tests/", "/")
"""Programs, and what lava-dl and lava-nc install by mistake, which is removed on purpose."""


def damaged_file(root: Path, *, contents: bool = True) -> str | None:
    """The first file of an installed package that is missing or has been altered, and which of the two; or None.

    Every package lists its files with their sizes and hashes when it is installed.

    Args:
        root: The environment's folder.
        contents: Whether to compare the hashes, which takes a second or two, and not the sizes alone.
    """
    for record in sorted(root.glob("lib/python3.*/site-packages/*.dist-info/RECORD")):
        packages = record.parent.parent
        try:
            rows = list(csv.reader(record.read_text(encoding="utf-8").splitlines()))
        except (OSError, ValueError, csv.Error):
            return f"{record.relative_to(root)} cannot be read"
        for row in rows:
            checked = len(row) == 3 and row[1].startswith("sha256=")
            # Python writes a .pyc anew when it likes to.
            if not checked or row[0].startswith(_OUTSIDE) or row[0].endswith(".pyc"):
                continue
            wrong = _wrong(packages / row[0], row[1].removeprefix("sha256="), row[2], contents)
            if wrong:
                return f"{(packages / row[0]).relative_to(root)} {wrong}"
    return None


def _wrong(path: Path, expected: str, size: str, contents: bool) -> str:
    try:
        actual_size = path.stat().st_size
        if size and str(actual_size) != size:
            return f"has been altered ({actual_size} bytes in place of {size})"
        if not contents:
            return ""
        content = path.read_bytes()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    actual = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return "" if actual == expected else "has been altered"
