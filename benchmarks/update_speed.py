"""Processor seconds of one update of `static`, and of another checkout of this project in the same run.

    OMP_NUM_THREADS=1 python benchmarks/update_speed.py resnet20 --against ../earlier --out docs/measured/update_speed

Both checkouts take turns, each round in a process of its own; figures are medians over the rounds of the median over
the updates. Images are random ones, which change no time.
"""

from __future__ import annotations

import argparse
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
from provenance import machine

from cos_export.network.schedule import Schedule, check_schedule

CASES = (("layerwise", 1), ("layerwise", 4), ("synchronous", 1), ("synchronous", 4))
WARM = 3
"""Updates before the first that counts."""


def seconds(model: str, schedule: Schedule, steps: int, batch: int, updates: int) -> float:
    """The median processor time of an update, in this process with the checkout that Python finds first."""
    from calibration import Static, calibrate
    from cos_export import zoo
    from cos_export.capturing import capture
    from cos_export.zoo.model_source import build_model

    images = np.random.default_rng(0).random((8 * batch, *zoo.entry(model).input_shape), np.float32)
    network = replace(capture(build_model(model).eval(), images[:1]), schedule=schedule)
    moments: list[float] = []

    def watch(stage: str, done: int, total: int) -> None:
        if stage == "tuning":
            moments.append(time.process_time())

    method = Static(("potential", "threshold", "weight"), updates, batch, rounds=1, flip=True, shift=4, both_sides=True)
    calibrate(network, images, method, steps, progress=watch, device="cpu")
    return float(statistics.median(np.diff(moments)[WARM:]))


def measured_in(checkout: Path, given: argparse.Namespace, schedule: str, steps: int) -> float:
    """`seconds` in a process of its own with the code of `checkout`."""
    shown = [given.model, str(steps), schedule, str(given.batch), str(given.updates)]
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
    done = subprocess.run(
        [sys.executable, "-P", __file__, "--child", *shown], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Measures and writes .json and .md."""
    if sys.argv[1:2] == ["--child"]:
        model, shown_steps, shown_schedule, batch, updates = sys.argv[2:]
        print(seconds(model, check_schedule(shown_schedule), int(shown_steps), int(batch), int(updates)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--against", type=Path, required=True, help="another checkout, measured in turn with this one")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    rows: list[dict[str, Any]] = []
    for schedule, steps in CASES:
        taken: dict[str, list[float]] = {"before": [], "now": []}
        for _ in range(given.rounds):
            for name, checkout in (("before", given.against), ("now", here)):
                taken[name].append(measured_in(checkout, given, schedule, steps))
        rows.append({"schedule": schedule, "steps": steps} | {k: statistics.median(v) for k, v in taken.items()})
    document = {
        "model": given.model,
        "batch": given.batch,
        "rounds": given.rounds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": machine(),
        "rows": rows,
    }
    lines = [
        f"{given.model}, an update of `static` on {given.batch} images, seconds of processor time "
        f"({document['threads']} thread, torch {torch.__version__}).",
        "",
        "| schedule | T | before | now | times as fast |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        ratio = row["before"] / row["now"]
        lines.append(f"| {row['schedule']} | {row['steps']} | {row['before']:.3f} | {row['now']:.3f} | {ratio:.2f} |")
    write_out(given.out, document, "\n".join(lines) + "\n")
    print(given.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
