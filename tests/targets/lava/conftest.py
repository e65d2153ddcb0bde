"""What the tests of the Lava target share: its environment, the worker's modules, and the traces that a run leaves."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cos_export.errors import UnavailableError
from cos_export.network import SpikingNetwork
from targets import workers
from targets.lava.environment import LAVA, find
from targets.lava.job import write_job
from targets.lava.lowering import lower
from targets.workers.environment import WorkerEnvironment
from targets.workers.job import Job
from targets.workers.process_group import members

WORKER = LAVA.program
SHARED = Path(workers.__file__).parent / "worker"


@pytest.fixture(scope="session")
def lava_environment() -> WorkerEnvironment:
    """Lava's environment. A test that needs it fails without it: skipping would hide that nothing was tested."""
    try:
        return find()
    except UnavailableError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def worker_modules() -> Iterator[SimpleNamespace]:
    """The worker's modules that need no Lava, imported as the worker does: by name, from its folder."""
    names = (
        "job",
        "protocol",
        "operations",
        "lava_arguments",
        "stages",
        "currents",
        "pipeline",
        "neurons",
        "layer",
        "window_schedule",
    )
    before = set(sys.modules)
    sys.path[:0] = [str(WORKER), str(SHARED)]
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(WORKER))
        sys.path.remove(str(SHARED))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith((str(WORKER), str(SHARED))):
                del sys.modules[name]


@pytest.fixture
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the target makes its job folders during a test, this process and those it starts alike."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def written_job(tmp_path: Path) -> Callable[..., Job]:
    """Writes the job of a network into a folder of the test, for the test to spoil."""

    def write(network: SpikingNetwork, images: Any, steps: int = 2, **changes: Any) -> Job:
        folder = tmp_path / "job"
        folder.mkdir()
        options: dict[str, Any] = {
            "backend": "batched",
            "steps": steps,
            "samples": len(images),
            "batch": len(images),
            "cores": 1,
            "record_spikes": True,
            "deadline": 60.0,
            **changes,
        }
        return write_job(folder, network, lower(network, np.asarray(images), steps), **options)

    return write


def leader_of(folder: Path, seconds: float = 40.0) -> int:
    """The main process of the worker that runs a job in or below `folder`, once it has started its network."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().decode().split("\0")
                parent, group = map(int, (process / "stat").read_text().rpartition(")")[2].split()[1:3])
            except (OSError, ValueError):
                continue
            ours = str(WORKER) in words and any(str(folder) in word for word in words)
            if not (ours and group == int(process.name) and parent > 0):
                continue
            # Its own process, those of the shared memory and its tracker, and at least three of the network's.
            if len(members(group)) >= 6 and segments(folder):
                return group
        time.sleep(0.05)
    raise TimeoutError(f"no worker was running in {folder} within {seconds} s")


def prefixes(folder: Path) -> list[str]:
    """The prefixes of the shared memory of the jobs in and below a folder."""
    return [json.loads(path.read_text())["segment_prefix"] for path in folder.glob("**/job.json")]


def segments(folder: Path, known: list[str] | None = None) -> list[str]:
    """The shared memory of those jobs."""
    wanted = tuple(known or prefixes(folder))
    names = [path.name for path in Path("/dev/shm").iterdir()]
    return [name for name in names if wanted and name.removeprefix("sem.").startswith(wanted)]


@pytest.fixture
def worker_traces() -> SimpleNamespace:
    """What finds the processes and the shared memory of a worker."""
    return SimpleNamespace(leader_of=leader_of, members=members, prefixes=prefixes, segments=segments)
