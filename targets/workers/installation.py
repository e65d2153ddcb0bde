"""How the environment of a worker is made: complete, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cos_export.errors import InputError, UnavailableError
from cos_export.progress import Progress, silent
from targets.workers.environment import BEGUN, WorkerEnvironment, find, location
from targets.workers.integrity import damaged_file
from targets.workers.software import Software

__all__ = ["Pip", "Recipe", "install"]

_COMPLETE = "complete.json"
_QUOTED_LINES = 8
_INSTALL_LIMIT = 1800.0


@dataclass(frozen=True)
class Pip:
    """The pip of an environment that is being made.

    Attributes:
        software: What it is for.
        root: Its folder.
    """

    software: Software
    root: Path

    def install(self, *arguments: str, title: str | None = None) -> None:
        """Installs into the environment.

        Args:
            arguments: What follows `pip install`.
            title: What messages call it; by default the software's title.

        Raises:
            UnavailableError: It could not; quotes what pip said last.
        """
        python = str(self.root / "bin" / "python")
        command = [python, "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *arguments]
        _command(self.software, command, f"pip could not install {title or self.software.title}")


@dataclass(frozen=True)
class Recipe:
    """How the environment of some software is filled.

    Attributes:
        software: What it is.
        python: Chooses the Python to build on.
        steps: What is done in turn once there is an environment, each told of its pip.
        mend: Adds what an environment that an earlier version of this package has made may lack.
    """

    software: Software
    python: Callable[[], Path]
    steps: Sequence[Callable[[Pip], None]]
    mend: Callable[[Pip], None] = lambda pip: None


def install(recipe: Recipe, progress: Progress = silent) -> WorkerEnvironment:
    """Makes the environment, or returns the one that is there and works.

    It is complete or it is not used: a marker stands in it until it has been tried, and what an
    interrupted installation has left is removed by the next. Two at once wait for each other.

    Args:
        recipe: What is to be made.
        progress: Told of each step.

    Raises:
        UnavailableError: It could not be made; quotes what failed and says what to do.
        InputError: The folder is in use for something else.
    """
    software, root = recipe.software, location(recipe.software)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with _locked(root.with_name(root.name + ".lock")):
            return _install_locked(recipe, root, progress)
    except OSError as error:
        raise UnavailableError(
            f"{software.title}'s environment cannot be made at {root}: {error}. Name a folder that can be written in "
            f"{software.variable}."
        ) from error


def _install_locked(recipe: Recipe, root: Path, progress: Progress) -> WorkerEnvironment:
    software = recipe.software
    optional = [package.name for package in software.optional]
    try:
        environment = find(software)
    except UnavailableError:
        _remove_incomplete(software, root)
    else:
        if any(name not in environment.versions for name in optional):
            recipe.mend(Pip(software, root))
        if _works(software, root):
            return find(software, also=optional)
        _remove_incomplete(software, root)
    try:
        _make(recipe, root, progress)
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    return find(software, also=optional)


def _works(software: Software, root: Path) -> bool:
    """Whether all that was installed is there, and can be imported."""
    if damaged_file(root) is not None:
        return False
    try:
        _probe(software, root)
    except UnavailableError:
        return False
    return True


def _probe(software: Software, root: Path) -> str:
    """Starts the worker and lets it import all that it needs; returns the versions that it tells, as JSON.

    Raises:
        UnavailableError: It cannot.
    """
    command = [str(root / "bin" / "python"), "-I", "-B", str(software.program), "--probe"]
    said = _command(software, command, f"{software.title} was installed, and does not start")
    return said.strip().splitlines()[-1]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock, which the system frees even if this process is killed. The file stays: it is the lock."""
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_incomplete(software: Software, root: Path) -> None:
    """Removes what an earlier installation by this module left, and nothing else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    if not ((root / BEGUN).exists() or (root / _COMPLETE).exists()):
        raise InputError(
            f"{root} exists, and is not an environment that was installed here, so it is left alone. Remove it, or "
            f"name another folder in {software.variable}."
        )
    shutil.rmtree(root)


def _make(recipe: Recipe, root: Path, progress: Progress) -> None:
    software = recipe.software
    stage, total = f"installing {software.title}", len(recipe.steps) + 2
    python = recipe.python()
    root.mkdir(parents=True, exist_ok=True)
    (root / BEGUN).write_text(json.dumps({"process": os.getpid()}), encoding="utf-8")
    progress(stage, 0, total)
    _command(software, [str(python), "-I", "-m", "venv", str(root)], "An environment could not be made")
    for done, step in enumerate(recipe.steps, 1):
        progress(stage, done, total)
        step(Pip(software, root))
    progress(stage, total - 1, total)
    (root / _COMPLETE).write_text(_probe(software, root), encoding="utf-8")
    (root / BEGUN).unlink()
    progress(stage, total, total)


def _command(software: Software, command: Sequence[str], failure: str) -> str:
    """Runs a program and returns what it printed.

    Raises:
        UnavailableError: It failed; quotes its last lines.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_INSTALL_LIMIT,
            check=False,
        )
    except OSError as error:
        raise UnavailableError(f"{failure}: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{failure}: it took more than {_INSTALL_LIMIT:.0f} s.") from error
    if done.returncode:
        last = "\n".join(f"    {line}" for line in done.stdout.strip().splitlines()[-_QUOTED_LINES:])
        raise UnavailableError(
            f'{failure}. "{" ".join(command[1:])}" said at last:\n{last}\n'
            f'Check the network connection and pip\'s settings, then try "{software.install_command}" again.'
        )
    return done.stdout
