"""An environment that a worker runs in: where it is, and whether it can be used. `installation` makes it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from cos_export.bundle.target import Availability
from cos_export.errors import UnavailableError
from targets.workers.software import Package, Software

__all__ = ["BEGUN", "WorkerEnvironment", "availability", "damaged", "find", "location"]

BEGUN = "installing.json"
"""Stands in an environment until it is complete."""

_QUOTED_CHARACTERS = 300


@dataclass(frozen=True)
class WorkerEnvironment:
    """An environment that holds a worker's software.

    Attributes:
        software: What it is for.
        path: Its folder.
        python: The interpreter to run the worker with.
        versions: Of the software's packages that are there, by name.
        python_version: As "3.10.13", or empty if it does not say.
    """

    software: Software
    path: Path
    python: Path
    versions: Mapping[str, str]
    python_version: str = ""


def location(software: Software) -> Path:
    """The environment's folder: what the software's variable names, or one within the running environment."""
    named = os.environ.get(software.variable)
    default = Path(sys.prefix) / "share" / "cos-export" / software.folder
    return Path(named).expanduser().absolute() if named else default


def find(software: Software, *, also: Collection[str] = ()) -> WorkerEnvironment:
    """The environment, judged by its files alone: nothing is run, so that asking costs nothing.

    Args:
        software: What it must hold.
        also: Which of the optional packages must be there, too.

    Raises:
        UnavailableError: There is none, or it cannot be used; says what to do.
    """
    root, title = location(software), software.title
    advice = f'Install it with "{software.install_command}".'
    if os.name != "posix":
        raise UnavailableError(f"{title} runs on Linux and macOS only.")
    if not root.is_dir():
        raise UnavailableError(f"{title} is not installed: there is no environment at {root}. {advice}")
    if (root / BEGUN).exists():
        raise UnavailableError(f"{title} is not installed: the environment at {root} was never completed. {advice}")
    python = root / "bin" / "python"
    if not os.access(python, os.X_OK):
        raise UnavailableError(f"The environment at {root} is broken: {python} is not a program. {advice}")
    versions: dict[str, str] = {}
    for package in (*software.packages, *software.optional):
        held = _versions(root, package)
        if held != [package.version] and (package in software.packages or package.name in also):
            actual = f"{package.name} {', '.join(held)}" if held else f"no {package.name}"
            needed = (
                f"{package.needed_by} needs {package.version}" if package.needed_by else f"{package.version} is needed"
            )
            raise UnavailableError(f"The environment at {root} holds {actual}, and {needed}. {advice}")
        if held:
            versions[package.name] = held[0]
    return WorkerEnvironment(software, root, python, versions, _python_version(root))


def availability(look: Callable[[], WorkerEnvironment], name: str) -> Availability:
    """Whether software can run here, by the files of its environment alone.

    Args:
        look: Finds the environment, as `find` does.
        name: What the software is called beside the version of its first package.
    """
    try:
        environment = look()
    except UnavailableError as error:
        return Availability(ready=False, reason=str(error))
    python = f" (Python {environment.python_version})" if environment.python_version else ""
    return Availability(ready=True, version=f"{name} {environment.software.packages[0].version}{python}")


def damaged(software: Software, root: Path, damage: str) -> UnavailableError:
    """The error that an environment is there and does not work.

    Args:
        software: What it is for.
        root: Its folder.
        damage: What is wrong with it; of several lines only the first is told.
    """
    line = " ".join(damage.strip().split("\n")[0].split())[:_QUOTED_CHARACTERS]
    return UnavailableError(
        f"{software.title}'s environment at {root} is damaged: {line.rstrip('.')}. "
        f'Make it anew with "{software.install_command}".'
    )


def _versions(root: Path, package: Package) -> list[str]:
    """What the environment says it holds of a package."""
    folder = package.name.replace("-", "_")
    return sorted(
        path.name.removeprefix(f"{folder}-").removesuffix(".dist-info")
        for path in root.glob(f"lib/python3.*/site-packages/{folder}-*.dist-info")
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
