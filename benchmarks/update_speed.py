"""Processor seconds of one update of `static`, and of other checkouts of this project in the same run.

    OMP_NUM_THREADS=1 python benchmarks/update_speed.py resnet20 --against 0fae825=../earlier \
        --out docs/measured/update_speed

The checkouts take turns, each in a process of its own for all cases; figures are medians over the rounds of the median
over the updates, and of the ratios of each round. Images are random ones of uint8, which change no time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from out_files import write_out
from provenance import command, machine, versions

CASES = (("layerwise", 1), ("layerwise", 4), ("synchronous", 1), ("synchronous", 4))
WARM = 3
"""Updates before the first that counts."""


def seconds(model: str, schedule: str, steps: int, batch: int, updates: int) -> float:
    """The median processor time of an update, in this process with the checkout that Python finds first."""
    from calibration import Static, calibrate
    from cos_export import zoo
    from cos_export.capturing import capture
    from cos_export.zoo.model_source import build_model

    images = np.random.default_rng(0).integers(0, 256, (8 * batch, *zoo.entry(model).input_shape), np.uint8)
    module = build_model(model).eval()
    # A checkout of before has its own types.
    network = replace(capture(module, images[:1].astype(np.float32) / 255), schedule=schedule)  # type: ignore[arg-type]
    moments: list[float] = []

    def watch(stage: str, done: int, total: int) -> None:
        if stage == "tuning":
            moments.append(time.process_time())

    method = Static(("potential", "threshold", "weight"), updates, batch, rounds=1, flip=True, shift=4, both_sides=True)
    calibrate(network, images, method, steps, progress=watch, device="cpu")
    return float(statistics.median(np.diff(moments)[WARM:]))


def measured_in(checkout: Path, given: argparse.Namespace) -> list[float]:
    """`seconds` of each case, in a process of its own with the code of `checkout`."""
    shown = [given.model, str(given.batch), str(given.updates)]
    done = subprocess.run(
        [sys.executable, "-P", __file__, "--child", *shown],
        env=os.environ | {"PYTHONPATH": search_path(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{checkout} cannot be measured: {done.stderr.strip()[-800:]}")
    print(checkout.name, done.stdout.splitlines()[-1], flush=True)
    return [float(one) for one in json.loads(done.stdout.splitlines()[-1])]


def search_path(checkout: Path) -> str:
    """Where Python looks for modules: first in the checkout, and for those of this benchmark beside it."""
    return os.pathsep.join(map(str, (checkout.resolve(), Path(__file__).resolve().parent)))


def main() -> None:
    """Measures and writes .json and .md."""
    if sys.argv[1:2] == ["--child"]:
        model, batch, updates = sys.argv[2:]
        print(json.dumps([seconds(model, schedule, steps, int(batch), int(updates)) for schedule, steps in CASES]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--against", nargs="+", required=True, metavar="LABEL=FOLDER", help="other checkouts")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    pairs = [one.partition("=") for one in given.against]
    checkouts = {label: Path(folder) for label, _, folder in pairs} | {"now": Path(__file__).resolve().parents[1]}
    rows: list[dict[str, Any]] = []
    all_rounds = [
        {label: measured_in(folder, given) for label, folder in checkouts.items()} for _ in range(given.rounds)
    ]
    for number, (schedule, steps) in enumerate(CASES):
        rounds = [{label: one[label][number] for label in checkouts} for one in all_rounds]
        taken = {label: statistics.median(one[label] for one in rounds) for label in checkouts}
        faster = {label: statistics.median(one[label] / one["now"] for one in rounds) for label in checkouts}
        rows.append({"schedule": schedule, "steps": steps, "seconds": taken, "times as fast": faster})
    document = {
        "model": given.model,
        "batch": given.batch,
        "rounds": given.rounds,
        "updates": given.updates,
        "machine": machine(),
        "versions": versions(),
        "command": command(),
        "rows": rows,
    }
    before = [label for label in checkouts if label != "now"]
    columns = ["schedule", "T", *checkouts, *(f"times as fast as {label}" for label in before)]
    lines = [
        f"{given.model}, one update of `static` on {given.batch} images of uint8 (potentials, thresholds and weights; "
        "mirrored, moved, both sides), seconds of processor time. Other columns than `now` are commits of before.",
        "",
        f"| {' | '.join(columns)} |",
        "| --- " * len(columns) + "|",
    ]
    for row in rows:
        shown = [f"{row['seconds'][label]:.3f}" for label in checkouts]
        shown += [f"{row['times as fast'][label]:.2f}" for label in before]
        lines.append(f"| {row['schedule']} | {row['steps']} | {' | '.join(shown)} |")
    lines += [
        "",
        f"* Medians of {given.rounds} rounds in turn of the median of {given.updates - 1 - WARM} updates, and of the "
        "ratios of each round.",
        f"* {machine()}; torch {torch.__version__}.",
        f"* `OMP_NUM_THREADS={torch.get_num_threads()} {command()}`",
    ]
    write_out(given.out, document, "\n".join(lines) + "\n")
    print(given.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
