"""The worker: runs one job on a client's neurons.

    python -I -B worker FOLDER      runs the job in FOLDER; progress goes to standard output, a line of JSON each
    python -I -B worker --probe     imports all that a job may need, and says as JSON what there is

It ends with 0 if result.json says "done", 1 if it says "failed", and otherwise if no result could be written.
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "workers" / "worker"))

from guardian import Guardian
from protocol import JobError, fail, read_document, report_to, serve, write_result

_CLIENTS = ("sinabs", "snntorch", "norse", "spikingjelly")


class _OurPackages:
    """Finds this project's packages where they lie, and nothing else of what lies there: clients pin other versions."""

    root = str(Path(__file__).resolve().parents[3])

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in ("cos_export", "calibration", "targets"):
            return None
        return PathFinder.find_spec(name, [cls.root], target)


def _versions() -> dict[str, str]:
    versions = {name: metadata.version(name) for name in (*_CLIENTS, "torch", "numpy", "h5py")}
    return {"python": platform.python_version(), **versions}


def _probe() -> None:
    for client in _CLIENTS:
        importlib.import_module(f"cos_export.clients.neurons.{client}")
    sys.stdout.write(json.dumps(_versions()) + "\n")


def _run(progress: int) -> None:
    started = time.monotonic()
    job = read_document()
    Guardian(job["parent"], job["deadline"], job["segment_prefix"]).start()
    try:
        from cos_export.clients import load
        from cos_export.errors import InputError, NetworkError

        importlib.import_module(f"cos_export.clients.neurons.{job['client']}")
    except Exception as error:  # noqa: BLE001 - a module that was cut short may raise anything
        fail(error, traceback.format_exc(), importing=True)
    try:
        network = load(job["model"], job["client"])
    except NetworkError as error:
        fail(error, cause="network")
    except InputError as error:
        raise JobError(str(error)) from error
    _compute(network, job, progress)
    write_result({"status": "done", "seconds": time.monotonic() - started})


def _compute(network: Any, job: Mapping[str, Any], progress: int) -> None:
    """Runs the samples in batches, and writes what comes of each to its place in the files."""
    import numpy as np
    import torch

    report = report_to(progress)
    images = np.load("images.npy", mmap_mode="r", allow_pickle=False)
    steps, samples, batch = job["steps"], len(images), job["batch"]
    outputs = np.lib.format.open_memmap("outputs.npy", "w+", np.float32, (steps, samples, *job["classes"]))
    states = {
        kind: {name: np.load(file, mmap_mode="r", allow_pickle=False) for name, file in files.items()}
        for kind, files in job["states"].items()
    }
    packed: dict[str, Any] = {}
    for start in range(0, samples, batch):
        part = slice(start, start + batch)
        given = {
            kind: {name: torch.from_numpy(np.array(values[part])) for name, values in arrays.items()}
            for kind, arrays in states.items()
        }
        with torch.no_grad():
            outputs[:, part] = network.run(torch.from_numpy(np.array(images[part])), steps, **given).numpy()
        for name, file in job["spikes"].items():
            spikes = np.packbits(network.spikes[name].flatten(2).numpy(), axis=-1)
            if name not in packed:
                packed[name] = np.lib.format.open_memmap(file, "w+", np.uint8, (steps, samples, spikes.shape[-1]))
            packed[name][:, part] = spikes
        report(min(start + batch, samples))
    for array in (outputs, *packed.values()):
        array.flush()


def main() -> None:
    """Runs what the command line asks for, and ends the process at once."""
    sys.meta_path.append(_OurPackages)
    if sys.argv[1:] == ["--probe"]:
        _probe()
        return
    serve(_run)


if __name__ == "__main__":
    main()
