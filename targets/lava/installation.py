"""How Lava's environment is made: on Python 3.10 as published, elsewhere past what pip knows of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cos_export.progress import Progress, silent
from targets.lava.environment import LAVA, LAVA_DL, LAVA_NC
from targets.workers import installation
from targets.workers.environment import WorkerEnvironment
from targets.workers.installation import Pip, Recipe

__all__ = ["install"]

_DEPENDENCIES = ("numpy", "scipy", "networkx", "asteval")


def install(progress: Progress = silent) -> WorkerEnvironment:
    """Makes Lava's environment, or returns the one that is there and works: see `workers.installation.install`.

    Args:
        progress: Told of each step.

    Raises:
        UnavailableError: It could not be made; quotes what failed and says what to do.
        InputError: The folder is in use for something else.
    """
    recipe = Recipe(LAVA, lambda: _choose_python()[0], (_add_lava, _add_netx), mend=_add_netx)
    return installation.install(recipe, progress)


def _add_lava(pip: Pip) -> None:
    if _choose_python()[1]:
        pip.install(f"lava-nc=={LAVA_NC.version}")
        return
    pip.install(*_DEPENDENCIES)
    # Without --no-deps the flag would hold for the dependencies too, and fetch ones that do not fit.
    pip.install("--no-deps", "--ignore-requires-python", f"lava-nc=={LAVA_NC.version}")


def _add_netx(pip: Pip) -> None:
    """Installs lava-dl for its netx, without PyTorch, of which it asks for three gigabytes and netx uses nothing."""
    pip.install("h5py", title="lava-dl")
    pip.install("--no-deps", "--ignore-requires-python", f"lava-dl=={LAVA_DL.version}", title="lava-dl")
    for stray in pip.root.glob("lib/python3.*/site-packages/tests"):
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
