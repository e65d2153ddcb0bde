"""Lava's own environment: where it is, whether it can be used, and how it is made.

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
from dataclasses import dataclass
from pathlib import Path

from cos_export.errors import InputError, UnavailableError
from cos_export.progress import Progress, silent

__all__ = ["INSTALL_COMMAND", "LAVA_DL_VERSION", "LAVA_VERSION", "LavaEnvironment", "find", "install", "location"]

LAVA_VERSION = "0.10.0"
LAVA_DL_VERSION = "0.6.0"
LOCATION_VARIABLE = "COS_EXPORT_LAVA_ENV"
INSTALL_COMMAND = "cos-export targets --install lava"

_WORKER = Path(__file__).parent / "worker"
_COMPLETE, _BEGUN = "complete.json", "installing.json"
_DEPENDENCIES = ("numpy", "scipy", "networkx", "asteval")
_QUOTED_LINES = 8
_INSTALL_LIMIT = 1800.0


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
    if (root / _BEGUN).exists():
        raise UnavailableError(f"Lava is not installed: the environment at {root} was never completed. {advice}")
    python = root / "bin" / "python"
    if not os.access(python, os.X_OK):
        raise UnavailableError(f"The environment at {root} is broken: {python} is no program. {advice}")
    versions = _versions(root, "lava_nc")
    if versions != [LAVA_VERSION]:
        found = f"lava-nc {', '.join(versions)}" if versions else "no lava-nc"
        raise UnavailableError(f"The environment at {root} holds {found}, and {LAVA_VERSION} is needed. {advice}")
    extensions = _versions(root, "lava_dl")
    if netx and extensions != [LAVA_DL_VERSION]:
        found = f"lava-dl {', '.join(extensions)}" if extensions else "no lava-dl"
        raise UnavailableError(
            f"The environment at {root} holds {found}, and the netx back end needs {LAVA_DL_VERSION}. {advice}"
        )
    return LavaEnvironment(root, python, LAVA_VERSION, _python_version(root), "".join(extensions[:1]))


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


def install(progress: Progress = silent) -> LavaEnvironment:
    """Makes the environment, or returns the one that is there.

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
        return find(netx=True)
    try:
        _make(root, progress)
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    return find(netx=True)


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
    if not ((root / _BEGUN).exists() or (root / _COMPLETE).exists()):
        raise InputError(
            f"{root} exists, and is no environment that was installed here, so it is left alone. Remove it, or "
            f"name another folder in {LOCATION_VARIABLE}."
        )
    shutil.rmtree(root)


def _make(root: Path, progress: Progress) -> None:
    stage, total = "installing Lava", 4
    python, fits = _choose_python()
    root.mkdir(parents=True, exist_ok=True)
    (root / _BEGUN).write_text(json.dumps({"process": os.getpid()}), encoding="utf-8")
    progress(stage, 0, total)
    _command([str(python), "-I", "-m", "venv", str(root)], "An environment could not be made")
    inside, pip = str(root / "bin" / "python"), _pip(root)
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
    versions = _command([inside, "-I", "-B", str(_WORKER), "--probe"], "Lava was installed, and does not start")
    (root / _COMPLETE).write_text(versions.strip().splitlines()[-1], encoding="utf-8")
    (root / _BEGUN).unlink()
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
