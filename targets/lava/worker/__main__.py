"""The worker: runs one job in Lava.

    python -I -B worker FOLDER      runs the job in FOLDER; progress goes to standard output, a line of JSON each
    python -I -B worker --probe     imports all that a job may need, and says as JSON what Lava there is

It ends with 0 if result.json says "done", 1 if it says "failed", and otherwise if no result could be written.
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
import time
import traceback
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "workers" / "worker"))

from guardian import Guardian, name_segments, tie_children
from job import PROGRESS_FILE, Job, read_job
from protocol import JobError, fail, report_to, serve, write_result

_CORE = (
    "lava.magma.core.run_conditions",
    "lava.magma.core.run_configs",
    "lava.magma.runtime.runtime",
)
_SYNAPSES = ("lava.proc.dense.models", "lava.proc.lif.models", "lava.proc.sparse.models")
_MODULES = {"batched": _CORE, "faithful": (*_CORE, *_SYNAPSES), "netx": (*_CORE, *_SYNAPSES)}
"""What each back end imports of Lava when it builds a network or runs it, beside convolutions."""


def _versions() -> dict[str, str]:
    versions = {name: metadata.version(name) for name in ("lava-nc", "numpy", "scipy")}
    return {"python": platform.python_version(), **versions}


def _import(backend: str) -> Callable[[Job], Any]:
    """Imports Lava and what a back end needs of it, and returns what builds its network."""
    from compatibility import import_convolution, import_lava, import_netx

    import_lava()
    if backend != "batched":
        import_convolution()
    for module in _MODULES[backend]:
        importlib.import_module(module)
    if backend == "netx":
        import_netx()
    build: Callable[[Job], Any] = importlib.import_module(backend).build
    return build


def _probe() -> None:
    for backend in _MODULES:
        _import(backend)
    sys.stdout.write(json.dumps(_versions()) + "\n")


def _run(progress: int) -> None:
    started = time.monotonic()
    job = read_job()
    name_segments(job.segment_prefix)
    if job.parent is not None:
        Guardian(job.parent, job.deadline, job.segment_prefix).start()
    tie_children()

    if job.backend not in _MODULES:
        raise JobError(f"There is no back end {job.backend!r}.")
    try:
        build = _import(job.backend)
        import numpy as np
        from execution import Monitor, run_network
    except Exception as error:  # noqa: BLE001 - a module that was cut short may raise anything
        fail(error, traceback.format_exc(), importing=True)
    np.save(PROGRESS_FILE, np.zeros(1, np.int64), allow_pickle=False)
    counter = np.load(PROGRESS_FILE, mmap_mode="r", allow_pickle=False)
    network, steps = build(job)
    run_network(network, steps, Monitor(network, counter, report_to(progress)), _config(job))
    write_result({"status": "done", "seconds": time.monotonic() - started, "versions": _versions()})


def _config(job: Job) -> Any:
    """How Lava chooses the models that run its processes: in fixed point its own ones compute in integers."""
    from lava.magma.core.run_configs import Loihi2SimCfg

    exceptions = {}
    if job.backend == "netx":
        from lava.proc.lif.process import LIF
        from processes.netx.soft_reset_model import SoftResetModel

        exceptions[LIF] = SoftResetModel
    tag = "fixed_pt" if job.integers else "floating_pt"
    return Loihi2SimCfg(select_tag=tag, exception_proc_model_map=exceptions)


def main() -> None:
    """Runs what the command line asks for, and ends the process without Lava's exit handlers."""
    if sys.argv[1:] == ["--probe"]:
        _probe()
        return
    serve(_run)


if __name__ == "__main__":
    main()
