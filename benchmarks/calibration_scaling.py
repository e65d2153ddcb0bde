"""How time and memory of a calibration grow with the depth of the network and with the number of images.

    OMP_NUM_THREADS=1 python benchmarks/calibration_scaling.py --out docs/measured/calibration_scaling

Residual networks of 20, 38 and 56 layers with random weights, on normal noise. Each calibration has a process of its
own. Time is the processor's, which other work on the machine disturbs less; memory is the highest during the
calibration above what the process held before it, images and weights included in that.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from out_files import write_out
from peak_memory import memory_now
from provenance import machine, versions

from calibration import COS, calibrate, method_named
from cos_export.capturing import capture
from cos_export.simulation import simulate
from cos_export.zoo.resnet import ResNet

BLOCKS = {20: 3, 38: 6, 56: 9}
"""Residual blocks of each stage, by depth."""

METHODS: dict[str, dict[str, object]] = {
    "mean-matching": {"rounds": 2},
    "bias": {},
    "ftbc": {"batches": 2, "samples": 64},
    "rmp": {},
    "static": {"rounds": 1, "updates": 4, "samples": 64, "tune": ("potential", "bias", "weight")},
    "cos": {},
}
"""What is measured, each with few rounds: it is how the numbers grow that counts."""


def work(method: str, depth: int, images: int, steps: int, batch: int) -> dict[str, float]:
    """One calibration: its processor seconds, and its highest memory in bytes."""
    torch.manual_seed(0)
    module = ResNet((BLOCKS[depth],) * 3, (16, 32, 64)).eval()
    given = np.random.default_rng(0).normal(size=(images, 3, 32, 32)).astype(np.float32)
    network = capture(module, given[:2])
    # The first run of everything reserves memory that has nothing to do with the calibration.
    simulate(network, given[:2], 1, device="cpu", record_spikes=False)
    before, start = memory_now("cpu", reset=True), time.process_time()
    if method == "cos":
        options: dict[str, Any] = {"device": "cpu", "batch_size": batch, "record_spikes": False, "record_states": False}
        simulate(network, given, steps, calibration=COS(rho=4), **options)
    else:
        calibrate(network, given, method_named(method, METHODS[method]), steps, device="cpu", batch_size=batch)
    return {"seconds": time.process_time() - start, "peak": memory_now("cpu") - before}


def measure(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Every method at every depth, with few and with four times as many images."""
    rows = []
    for method, depth, images in product(METHODS, BLOCKS, (given.images, 4 * given.images)):
        if images > given.images and depth > min(BLOCKS):
            continue
        arguments = [method, depth, images, given.steps, given.batch]
        command = [sys.executable, __file__, "--worker", *map(str, arguments), "--out", str(given.out)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append({"method": method, "depth": depth, "images": images} | json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], file=sys.stderr)
    return rows


def markdown(measured: dict[str, Any]) -> str:
    """The table: each cell beside the one of the shallowest network and fewest images."""
    few = measured["images"]
    cells = {(row["method"], row["depth"], row["images"]): row for row in measured["rows"]}
    columns = [*((depth, few) for depth in BLOCKS), (min(BLOCKS), 4 * few)]
    heads = [f"{depth} layers, {images} images" for depth, images in columns]
    lines = [f"| method | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    for method in METHODS:
        base = cells[method, *columns[0]]
        parts = []
        for place in columns:
            row = cells[method, *place]
            ratios = f"{row['seconds'] / base['seconds']:.2f}x, {row['peak'] / base['peak']:.2f}x"
            parts.append(f"{row['seconds']:.1f} s, {row['peak'] / 1e6:.0f} MB ({ratios})")
        lines.append(f"| `{method}` | {' | '.join(parts)} |")
    lines += [
        "",
        f"T = {measured['steps']}, batches of {measured['batch']} images of 3 x 32 x 32. Processor seconds and the "
        "highest memory above what the process held before; in brackets both as multiples of the first column. 38 and "
        f"56 layers have {convolutions(38):.2f} and {convolutions(56):.2f} times the convolutions of 20.",
        "",
        f"{measured['machine']}; "
        + ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
        + ".",
        f"`{measured['command']}`",
    ]
    return "\n".join(lines) + "\n"


def convolutions(depth: int) -> float:
    """Convolutions of a depth, in those of the shallowest: the first one, and two in each block."""
    return (1 + 6 * BLOCKS[depth]) / (1 + 6 * BLOCKS[min(BLOCKS)])


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256, help="and four times as many")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True, help="written with .json and .md")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        method, *numbers = given.worker
        print(json.dumps(work(method, *map(int, numbers))))
        return
    measured = {
        "images": given.images,
        "steps": given.steps,
        "batch": given.batch,
        "rows": measure(given),
        "versions": versions(),
        "machine": f"{machine()}, load {os.getloadavg()[0]:.1f}",
        "command": f"OMP_NUM_THREADS={torch.get_num_threads()} python benchmarks/calibration_scaling.py "
        f"--images {given.images} --steps {given.steps} --batch {given.batch} --out docs/measured/calibration_scaling",
    }
    write_out(given.out, measured, markdown(measured))
    print(given.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
