"""The worker: runs one job in Lava.

    python -I -B worker FOLDER      runs the job in FOLDER; progress goes to standard output, a line of JSON each
    python -I -B worker --probe     says as JSON what Lava there is

It ends with 0 if result.json says "done", 1 if it says "failed", and otherwise if no result could be written.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import time
import traceback
from importlib import metadata
from typing import Any

from guardian import LAST_ACT, Guardian, name_segments, tie_children
from job import PROGRESS_FILE, Job, JobError, read_job, write_result


def _versions() -> dict[str, str]:
    found = {name: metadata.version(name) for name in ("lava-nc", "numpy", "scipy")}
    return {"python": platform.python_version(), **found}


def _probe() -> None:
    from compatibility import import_lava

    import_lava()
    for module in ("lava.magma.core.run_configs", "lava.proc.conv.process", "lava.proc.dense.process"):
        importlib.import_module(module)
    sys.stdout.write(json.dumps(_versions()) + "\n")


def _run(progress: int) -> None:
    started = time.monotonic()
    job = read_job()
    name_segments(job.segment_prefix)
    if job.parent is not None:
        Guardian(job).start()
    tie_children()

    import numpy as np
    from compatibility import import_lava
    from execution import Monitor, report_to, run_network

    import_lava()
    if job.backend == "batched":
        from batched import build
    elif job.backend == "faithful":
        from faithful import build
    elif job.backend == "netx":
        from netx import build
    else:
        raise JobError(f"There is no back end {job.backend!r}.")
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
    # Lava prints to standard output, which belongs to the progress.
    progress = os.dup(1)
    os.dup2(2, 1)
    try:
        os.chdir(sys.argv[1])
    except (OSError, IndexError) as error:
        sys.stderr.write(f"The job's folder cannot be opened: {error}\n")
        os._exit(2)
    try:
        _run(progress)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must be told
        from execution import fail

        message = str(error) if isinstance(error, JobError) else f"{type(error).__name__}: {error}"
        fail(message, "" if isinstance(error, JobError) else getattr(error, "trace", traceback.format_exc()))
    LAST_ACT.acquire()
    os._exit(0)


if __name__ == "__main__":
    main()
