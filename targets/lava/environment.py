"""Lava's own environment: where it is, and whether it can be used. `installation` makes it.

lava-nc 0.10.0 asks for Python 3.10 and installs a stray top-level package `tests`, so it does not live
beside this package. With a Python 3.10 the environment holds Lava as published; without one it holds the
running Python, and the worker makes Lava fit it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from cos_export.errors import UnavailableError

__all__ = [
    "BEGUN",
    "INSTALL_COMMAND",
    "LAVA_DL_VERSION",
    "LAVA_VERSION",
    "LOCATION_VARIABLE",
    "LavaEnvironment",
    "damaged",
    "find",
    "location",
]

LAVA_VERSION = "0.10.0"
LAVA_DL_VERSION = "0.6.0"
LOCATION_VARIABLE = "COS_EXPORT_LAVA_ENV"
INSTALL_COMMAND = "cos-export targets --install lava"

BEGUN = "installing.json"
"""Stands in an environment until it is complete."""

_QUOTED_CHARACTERS = 300


@dataclass(frozen=True)
class LavaEnvironment:
    """An environment that holds Lava.

    Attributes:
        path: Its folder.
        python: The interpreter to run the worker with.
        lava_version: Of lava-nc.
        python_version: As "3.10.13", or empty if it does not say.
        lava_dl_version: Of lava-dl, which the netx back end needs, or empty if there is none.
    """

    path: Path
    python: Path
    lava_version: str
    python_version: str
    lava_dl_version: str = ""


def location() -> Path:
    """The environment's folder: what COS_EXPORT_LAVA_ENV names, or one within the running environment."""
    named = os.environ.get(LOCATION_VARIABLE)
    return Path(named).expanduser().absolute() if named else Path(sys.prefix) / "share" / "cos-export" / "lava"


def find(*, netx: bool = False) -> LavaEnvironment:
    """The environment, judged by its files alone: nothing is run, so that asking costs nothing.

    Args:
        netx: Whether lava-dl must be there, too.

    Raises:
        UnavailableError: There is none, or it cannot be used; says what to do.
    """
    root = location()
    advice = f'Install it with "{INSTALL_COMMAND}".'
    if os.name != "posix":
        raise UnavailableError("Lava runs on Linux and macOS only.")
    if not root.is_dir():
        raise UnavailableError(f"Lava is not installed: there is no environment at {root}. {advice}")
    if (root / BEGUN).exists():
        raise UnavailableError(f"Lava is not installed: the environment at {root} was never completed. {advice}")
    python = root / "bin" / "python"
    if not os.access(python, os.X_OK):
        raise UnavailableError(f"The environment at {root} is broken: {python} is not a program. {advice}")
    versions = _versions(root, "lava_nc")
    if versions != [LAVA_VERSION]:
        actual = f"lava-nc {', '.join(versions)}" if versions else "no lava-nc"
        raise UnavailableError(f"The environment at {root} holds {actual}, and {LAVA_VERSION} is needed. {advice}")
    extensions = _versions(root, "lava_dl")
    if netx and extensions != [LAVA_DL_VERSION]:
        actual = f"lava-dl {', '.join(extensions)}" if extensions else "no lava-dl"
        raise UnavailableError(
            f"The environment at {root} holds {actual}, and the netx back end needs {LAVA_DL_VERSION}. {advice}"
        )
    return LavaEnvironment(root, python, LAVA_VERSION, _python_version(root), "".join(extensions[:1]))


def damaged(root: Path, damage: str) -> UnavailableError:
    """The error that an environment is there and does not work.

    Args:
        root: Its folder.
        damage: What is wrong with it; of several lines only the first is told.
    """
    line = " ".join(damage.strip().split("\n")[0].split())[:_QUOTED_CHARACTERS]
    return UnavailableError(
        f'Lava\'s environment at {root} is damaged: {line.rstrip(".")}. Make it anew with "{INSTALL_COMMAND}".'
    )


def _versions(root: Path, package: str) -> list[str]:
    """What the environment says it holds of a package."""
    return sorted(
        path.name.removeprefix(f"{package}-").removesuffix(".dist-info")
        for path in root.glob(f"lib/python3.*/site-packages/{package}-*.dist-info")
    )


def _python_version(root: Path) -> str:
    try:
        lines = (root / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip() == "version":
            return value.strip()
    return ""
