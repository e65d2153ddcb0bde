"""Whether memory grows with the images of a data set that is read by sample: an archive and a folder, n and 10 n.

    OMP_NUM_THREADS=1 python benchmarks/data_memory.py --images 1800 --out docs/measured/data_memory

A small module runs over generated images of 3 x 224 x 224, those of a folder being links to one file, in a process of
its own for each row. Memory is the most that was resident, above what the process held once all was imported and a
batch had run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cos_export.datasets import Dataset, load_dataset
from cos_export.training import accuracy

SHAPE = (3, 224, 224)
KINDS = ("archive", "folder")


def make(kind: str, count: int, path: Path) -> None:
    """A data set of that many images."""
    random = np.random.default_rng(0)
    if kind == "folder":
        from PIL import Image

        first = path / "0" / "0.jpg"
        for name in ("0", "1"):
            (path / name).mkdir(parents=True)
        Image.fromarray(random.integers(0, 256, (28, 28, 3), np.uint8)).resize(SHAPE[:0:-1]).save(first)
        for number in range(1, count):
            os.link(first, path / str(number % 2) / f"{number}.jpg")
        return
    with zipfile.ZipFile(path, "w") as archive:
        for name, shape in (("images", SHAPE), ("labels", ())):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                head = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
                np.lib.format.write_array_header_1_0(file, head)
                part = random.integers(0, 2, (100, *shape), np.uint8).tobytes()
                for _ in range(count // 100):
                    file.write(part)


def work(path: Path) -> dict[str, Any]:
    """One pass over a data set."""
    module = nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(147, 2)).eval()
    zeros = np.zeros((64, *SHAPE), np.float32)
    accuracy(module, Dataset(zeros, np.zeros(64, np.int64), "zeros", "none"))
    Path("/proc/self/clear_refs").write_text("5")
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    data = load_dataset(path)
    accuracy(module, data)
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"mib": (highest - before) / 1024, "cpu_seconds": time.process_time() - started}


def markdown(document: dict[str, Any]) -> str:
    """The table."""
    lines = ["| data | images | as float32 (GiB) | memory (MiB) | processor (s) |", "| --- | --- | --- | --- | --- |"]
    for row in document["rows"]:
        size = 4 * np.prod(SHAPE) * row["images"] / 2**30
        lines.append(
            f"| {row['data']} | {row['images']:,} | {size:.1f} | {row['mib']:.0f} | {row['cpu_seconds']:.1f} |"
        )
    return "\n".join([*lines, "", f"torch {document['torch']}. `{document['command']}`"]) + "\n"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1800, help="and ten times as many; hundreds")
    parser.add_argument("--out", type=Path, required=True, help="written with .json and .md")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        print(json.dumps(work(given.worker)))
        return
    rows = []
    for kind in KINDS:
        for count in (given.images, 10 * given.images):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "data"
                make(kind, count, path)
                command = [sys.executable, __file__, "--out", str(given.out), "--worker", str(path)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append({"data": kind, "images": count} | json.loads(done.stdout.splitlines()[-1]))
    ran = f"OMP_NUM_THREADS={torch.get_num_threads()} python benchmarks/data_memory.py --images {given.images}"
    document = {"rows": rows, "torch": torch.__version__, "command": f"{ran} --out docs/measured/data_memory"}
    given.out.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")
    given.out.with_suffix(".md").write_text(markdown(document))
    print(markdown(document))


if __name__ == "__main__":
    main()
