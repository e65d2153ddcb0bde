"""How Lava's environment is made.

lava-nc 0.10.0 asks for Python 3.10 and installs a stray top-level package `tests`, so it does not live
beside this package. With a Python 3.10 the environment holds Lava as published; without one it holds the
running Python, and the worker makes Lava fit it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cos_export.errors import InputError, UnavailableError
from cos_export.progress import Progress, silent
from targets.lava.environment import (
    BEGUN,
    INSTALL_COMMAND,
    LAVA_DL_VERSION,
    LAVA_VERSION,
    LOCATION_VARIABLE,
    LavaEnvironment,
    find,
    location,
)
from targets.lava.integrity import damaged_file

__all__ = ["install"]

_WORKER = Path(__file__).parent / "worker"
_COMPLETE = "complete.json"
_DEPENDENCIES = ("numpy", "scipy", "networkx", "asteval")
_QUOTED_LINES = 8
_INSTALL_LIMIT = 1800.0


def install(progress: Progress = silent) -> LavaEnvironment:
    """Makes the environment, or returns the one that is there and works.

    It is complete or it is not used: a marker stands in it until it has been tried, and what an
    interrupted installation has left is removed by the next. Two at once wait for each other.

    Args:
        progress: Told of each step.

    Raises:
        UnavailableError: It could not be made; quotes what failed and says what to do.
        InputError: The folder is in use for something else.
    """
    root = location()
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with _locked(root.with_name(root.name + ".lock")):
            return _install_locked(root, progress)
    except OSError as error:
        raise UnavailableError(
            f"Lava's environment cannot be made at {root}: {error}. Name a folder that can be written in "
            f"{LOCATION_VARIABLE}."
        ) from error


def _install_locked(root: Path, progress: Progress) -> LavaEnvironment:
    try:
        environment = find()
    except UnavailableError:
        _remove_incomplete(root)
    else:
        if environment.lava_dl_version != LAVA_DL_VERSION:
            _add_netx(root)
        if _works(root):
            return find(netx=True)
        _remove_incomplete(root)
    try:
        _make(root, progress)
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    return find(netx=True)


def _works(root: Path) -> bool:
    """Whether all that was installed is there, and can be imported."""
    if damaged_file(root) is not None:
        return False
    try:
        _probe(root)
    except UnavailableError:
        return False
    return True


def _probe(root: Path) -> str:
    """Starts the worker and lets it import all that it needs; returns the versions that it tells, as JSON.

    Raises:
        UnavailableError: It cannot.
    """
    python = str(root / "bin" / "python")
    said = _command([python, "-I", "-B", str(_WORKER), "--probe"], "Lava was installed, and does not start")
    return said.strip().splitlines()[-1]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock, which the system frees even if this process is killed. The file stays: it is the lock."""
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_incomplete(root: Path) -> None:
    """Removes what an earlier installation by this module left, and nothing else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    if not ((root / BEGUN).exists() or (root / _COMPLETE).exists()):
        raise InputError(
            f"{root} exists, and is not an environment that was installed here, so it is left alone. Remove it, or "
            f"name another folder in {LOCATION_VARIABLE}."
        )
    shutil.rmtree(root)


def _make(root: Path, progress: Progress) -> None:
    stage, total = "installing Lava", 4
    python, fits = _choose_python()
    root.mkdir(parents=True, exist_ok=True)
    (root / BEGUN).write_text(json.dumps({"process": os.getpid()}), encoding="utf-8")
    progress(stage, 0, total)
    _command([str(python), "-I", "-m", "venv", str(root)], "An environment could not be made")
    pip = _pip(root)
    progress(stage, 1, total)
    failed = "pip could not install Lava"
    if fits:
        _command([*pip, f"lava-nc=={LAVA_VERSION}"], failed)
    else:
        _command([*pip, *_DEPENDENCIES], failed)
        # Without --no-deps the flag would hold for the dependencies too, and fetch ones that do not fit.
        _command([*pip, "--no-deps", "--ignore-requires-python", f"lava-nc=={LAVA_VERSION}"], failed)
    progress(stage, 2, total)
    _add_netx(root)
    progress(stage, 3, total)
    (root / _COMPLETE).write_text(_probe(root), encoding="utf-8")
    (root / BEGUN).unlink()
    progress(stage, 4, total)


def _pip(root: Path) -> list[str]:
    """The command that installs into the environment."""
    return [str(root / "bin" / "python"), "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]


def _add_netx(root: Path) -> None:
    """Installs lava-dl for its netx, without PyTorch, of which it asks for three gigabytes and netx uses nothing."""
    pip, failed = _pip(root), "pip could not install lava-dl"
    _command([*pip, "h5py"], failed)
    _command([*pip, "--no-deps", "--ignore-requires-python", f"lava-dl=={LAVA_DL_VERSION}"], failed)
    for stray in root.glob("lib/python3.*/site-packages/tests"):
        shutil.rmtree(stray)


def _choose_python() -> tuple[Path, bool]:
    """A Python to build on, and whether it is one that Lava is published for."""
    for candidate in _candidates():
        trial = "import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 10))"
        try:
            # A name on the path may be a launcher that refuses to run, so it is run.
            done = subprocess.run([candidate, "-I", "-c", trial], capture_output=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return candidate, True
    return Path(sys.executable), False


def _candidates() -> Iterator[Path]:
    if sys.version_info[:2] == (3, 10):
        yield Path(sys.executable)
    on_path = shutil.which("python3.10")
    if on_path:
        yield Path(on_path)
    yield from sorted((Path.home() / ".pyenv" / "versions").glob("3.10*/bin/python3.10"), reverse=True)


def _command(command: Sequence[str], failure: str) -> str:
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
            f'Check the network connection and pip\'s settings, then try "{INSTALL_COMMAND}" again.'
        )
    return done.stdout
