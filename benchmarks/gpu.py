"""All that wants a GPU, in one command that ends by itself: tests, speed, long calibrations, long trainings.

    python benchmarks/gpu.py --minutes 10 --data train-1.npz train-2.npz train-3.npz --test-data test.npz \
        --out docs/measured/gpu

The data are CIFAR-10 as `.npz` files with `images` and `labels`, uint8, in one file or in parts. Each section has a
process of its own and a share of the time that is left, the most valuable first; what it has measured is written to
OUT.json after each figure, so that a crash or the end of its time loses one. What cannot run here says why. Calibrated
networks, weights and states to go on from stay in --keep. OUT.md is written where a CUDA device has measured.

With `--device cpu --minutes 2 --networks digits` it runs without a GPU and without data, to try it out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import processor, versions

from cos_export.device import resolve_device

SECTIONS = {"tests": 0.3, "speed": 0.25, "calibration": 0.5, "training": 0.8, "onnxruntime": 1.0}
"""The sections in order, each with its share of the time that is left then."""

NO_TIME = "had no time left"
"""What is said of a section that the others left too little of."""

GRACE = 15.0
"""Seconds that a section has to end by itself after its time."""


@dataclass(frozen=True)
class Settings:
    """What every section is told.

    Attributes:
        device: "cpu" or "cuda:N".
        networks: Of the zoo.
        data: The training images as one `.npz`, or a named data set.
        test_data: The images to measure on.
        keep: Where calibrated networks and weights stay.
        batches: Sizes of the batches whose speed is measured.
        steps: T of calibrations.
        test_samples: Images to measure on at most.
    """

    device: str
    networks: list[str]
    data: str
    test_data: str
    keep: str
    batches: list[int]
    steps: list[int]
    test_samples: int


def joined(parts: Sequence[Path], keep: Path) -> Path:
    """The parts of a data set as one file; of one part the part itself."""
    if len(parts) == 1:
        return parts[0]
    arrays = []
    for part in parts:
        with np.load(part, allow_pickle=False) as opened:
            arrays.append((opened["images"], opened["labels"]))
    whole = keep / "joined.npz"
    images, labels = (np.concatenate([pair[place] for pair in arrays]) for place in (0, 1))
    np.savez(whole, images=images, labels=labels)
    return whole


def run_section(name: str, settings: Settings, seconds: float, folder: Path) -> dict[str, Any]:
    """Runs a section in a process group of its own, and reads what it has written when it ended or was ended."""
    results, log = folder / f"{name}.jsonl", folder / f"{name}.log"
    results.unlink(missing_ok=True)
    program = Path(__file__).with_name("gpu_sections.py")
    command = [sys.executable, str(program), name, json.dumps(asdict(settings)), str(results), str(seconds)]
    begun, ended = time.monotonic(), "done"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(seconds + GRACE)
            if code:
                last = log.read_text(errors="replace").strip().splitlines()[-1:]
                ended = f"ended with exit code {code}: {' '.join(last)}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {seconds + GRACE:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    if ended == "done" and not rows:
        ended = NO_TIME
    return {"ended": ended, "seconds": round(time.monotonic() - begun, 1), "rows": rows}


def markdown(document: dict[str, Any]) -> str:
    """Every section as a table of what its rows hold."""
    parts = [f"{document['device_name']}, torch {document['versions']['torch']}, {document['minutes']:g} minutes."]
    for name, section in document["sections"].items():
        parts.append(f"## {name.capitalize()}")
        if section["ended"] != "done":
            parts.append(f"This section {section['ended']}")
        by_keys: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in section["rows"]:
            by_keys.setdefault(tuple(row), []).append(row)
        for keys, rows in by_keys.items():
            lines = ["| " + " | ".join(keys) + " |", "| --- " * len(keys) + "|"]
            lines += ["| " + " | ".join(_shown(row[key]) for key in keys) + " |" for row in rows]
            parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Runs the sections and writes what they measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all of it")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--data", nargs="+", type=Path, help="training images, in one .npz or in parts; default: digits"
    )
    parser.add_argument("--test-data", help="an .npz to measure on; of digits its test part")
    parser.add_argument("--networks", nargs="+", help="default: resnet20 vgg16; digits without data")
    parser.add_argument("--batches", nargs="+", type=int, default=[50, 256])
    parser.add_argument("--steps", nargs="+", type=int, default=[1, 2, 4], help="T of the calibrations")
    parser.add_argument("--test-samples", type=int, default=10_000)
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--keep", type=Path, default=Path("out/gpu"))
    parser.add_argument("--out", type=Path, required=True, help="for OUT.json, and OUT.md from a CUDA device")
    given = parser.parse_args()
    begun = time.monotonic()
    if given.data and not given.test_data:
        parser.error("--data wants --test-data: accuracies are measured on other images than those trained on.")
    device = resolve_device(given.device)
    given.keep.mkdir(parents=True, exist_ok=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        device=str(device),
        networks=given.networks or (["resnet20", "vgg16"] if given.data else ["digits"]),
        data=str(joined(given.data, given.keep)) if given.data else "digits",
        test_data=given.test_data or "digits",
        keep=str(given.keep),
        batches=given.batches,
        steps=given.steps,
        test_samples=given.test_samples,
    )
    document: dict[str, Any] = {
        "minutes": given.minutes,
        "device": settings.device,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "versions": versions(),
        "settings": asdict(settings),
        "sections": {},
    }
    for name in given.sections:
        left = 60 * given.minutes - (time.monotonic() - begun) - GRACE
        share = left * SECTIONS[name]
        if share < 1:
            document["sections"][name] = {"ended": NO_TIME, "seconds": 0.0, "rows": []}
        else:
            document["sections"][name] = run_section(name, settings, share, given.keep)
        given.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
        print(
            f"{name}: {document['sections'][name]['ended']}, {len(document['sections'][name]['rows'])} rows", flush=True
        )
    if device.type == "cuda":
        given.out.with_suffix(".md").write_text(markdown(document))
    else:
        print(markdown(document))


if __name__ == "__main__":
    main()
