"""What networks of ImageNet's size cost on one machine: time and memory of a conversion and of a verification.

    python benchmarks/scale.py --out docs/measured/scale

Weights are random and batch norms have seen the data, which are 64 random images of 3 x 224 x 224; no accuracy means
anything. Each command has a process of its own, from its first import to its end. One network under one schedule is
measured by `--networks resnet34-imagenet --schedules layerwise`, and what is missing in the tables by `--resume`.
Memory is the most that the process had resident, and "together" the most that it and its children had at once, where
what they share counts in each. Processor seconds are those of all threads, and of children.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from out_files import write_out
from provenance import machine, versions
from safetensors.torch import save_file
from torch import Tensor, nn

from cos_export import zoo
from cos_export.qcfs import QCFS

Row = dict[str, Any]
NETWORKS = ("resnet34-imagenet", "vgg16-imagenet")
SCHEDULES = ("synchronous", "layerwise")
IMAGES, STEPS, GOLDEN = 64, 4, 2
CONVERT, VERIFY = "convert-and-export", "verify"
FIRED = 0.99
"""The share of a layer's positive input that its threshold is not exceeded by."""


def fitted(name: str, images: Tensor) -> nn.Module:
    """A network of the zoo with random weights, whose batch norms and thresholds are those of some images."""
    model = zoo.build(name)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
        elif isinstance(part, QCFS):
            part.register_forward_pre_hook(_fit)
    with torch.no_grad():
        model.train()(images)
    return model.eval()


def _fit(activation: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    positive = inputs[0].flatten()
    positive = positive[positive > 0][:: max(1, positive.numel() // 2**20)]
    activation.threshold.fill_(float(positive.quantile(FIRED)))  # type: ignore[operator]


def prepared(name: str, folder: Path) -> tuple[Path, Path]:
    """Files of random weights and of random images."""
    images, weights = folder / "images.npz", folder / f"{name}.safetensors"
    if not images.exists():
        random = np.random.default_rng(0)
        pixels = random.random((IMAGES, 3, 224, 224), dtype=np.float32)
        np.savez(images, images=pixels, labels=random.integers(0, 1000, IMAGES))
    if not weights.exists():
        with np.load(images) as held:
            model = fitted(name, torch.from_numpy(held["images"][:4]))
        save_file(dict(model.state_dict()), weights)
    return images, weights


def measured(name: str, schedule: str, golden: int, folder: Path, given: argparse.Namespace) -> list[Row]:
    """The conversion of a network, and the verification of what came of it."""
    images, weights = prepared(name, folder)
    out = folder / f"{name}-{schedule}"
    convert = [CONVERT, name, "--weights", str(weights), "--data", str(images), "--out", str(out), "--device", "cpu"]
    convert += ["--method", "mean-matching", "--steps", str(STEPS), "--schedule", schedule, "--golden", str(golden)]
    rows = []
    for command in ([*convert, "--json"], [VERIFY, str(out), "--targets", "onnxruntime,lava", "--json"]):
        row = {"network": name, "schedule": schedule, "golden": golden, "command": command[0], "machine": machine()}
        rows.append(row | recorded(command, folder, given))
        if rows[-1]["exit_code"] != 0:
            break
    if out.exists():
        rows[-1]["bundle_bytes"] = {file.name: file.stat().st_size for file in sorted(out.iterdir())}
    return rows


def is_measured(rows: list[Row], part: tuple[str, str, int]) -> bool:
    """Whether both commands of a network, schedule and number of golden inputs have ended well."""
    ended = {row["command"] for row in rows if _part(row) == part and row["exit_code"] == 0}
    return ended == {CONVERT, VERIFY}


def _part(row: Row) -> tuple[str, str, int]:
    return row["network"], row["schedule"], row["golden"]


def recorded(command: list[str], folder: Path, given: argparse.Namespace) -> Row:
    """What a command has cost."""
    record, log = folder / "record.json", folder / "log"
    record.unlink(missing_ok=True)
    worker = [sys.executable, str(Path(__file__).with_name("scale_worker.py")), str(record), str(given.most), *command]
    with log.open("w") as file:
        try:
            ended = subprocess.run(worker, stdout=subprocess.DEVNULL, stderr=file, timeout=given.timeout, check=False)
        except subprocess.TimeoutExpired:
            return {"exit_code": -1, "said": f"stopped after {given.timeout} s"}
    if not record.exists():
        return {"exit_code": ended.returncode, "said": log.read_text()[-500:]}
    row: Row = json.loads(record.read_text())
    if row["exit_code"] != 0:
        row["said"] = log.read_text()[-500:]
    return row | {"load": round(os.getloadavg()[0], 1)}


def markdown(document: Row) -> str:
    """The tables."""
    lines = [
        "| network | schedule | golden inputs | command | wall (s) | processor (s) | memory (GiB) | together (GiB) "
        "| machine |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in document["rows"]:
        start = f"| `{row['network']}` | {row['schedule']} | {row['golden']} | {row['command']} |"
        if "seconds" not in row:
            lines.append(f"{start} {row['said']} | | | | {row['machine']} |")
            continue
        figures = f"{row['seconds']:.0f} | {row['cpu_seconds']:.0f} | {gib(row['peak'])} | {gib(row['peak_together'])}"
        failed = "" if row["exit_code"] == 0 else f", exit code {row['exit_code']}"
        lines.append(f"{start} {figures} | {row['machine']}{failed} |")
    for row in document["rows"]:
        if "stages" in row:
            lines += ["", *_stages(row)]
    told = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    lines += ["", f"{told}.", f"`{document['command']}`"]
    return "\n".join(lines) + "\n"


def _stages(row: Row) -> list[str]:
    """The stages of one command that took a second or a tenth of all, or set its peak."""
    title = f"{row['command']} of `{row['network']}`, {row['schedule']}, {row['golden']} golden inputs"
    lines = [
        f"{title}, by stage:",
        "",
        "| stage | wall (s) | processor (s) | memory (GiB) |",
        "| --- | --- | --- | --- |",
    ]
    for stage, cost in row["stages"].items():
        if cost["cpu_seconds"] >= max(1.0, 0.02 * row["cpu_seconds"]) or cost["peak"] == row["peak"]:
            lines.append(f"| {stage} | {cost['seconds']:.1f} | {cost['cpu_seconds']:.1f} | {gib(cost['peak'])} |")
    looks = sum(row["found_at_work"].values())
    busiest = [f"`{name}` {100 * count / looks:.0f} %" for name, count in list(row["found_at_work"].items())[:6]]
    return [*lines, "", f"Found at work: {', '.join(busiest)}."]


def gib(size: float) -> str:
    """For people."""
    return f"{size / 2**30:.2f}"


def main() -> None:
    """Measures, and writes .json and .md after each part; rows of other parts that are there stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--schedules", nargs="+", default=list(SCHEDULES), choices=SCHEDULES)
    parser.add_argument("--golden", type=int, default=GOLDEN)
    parser.add_argument("--most", type=float, default=14.0, help="GiB at which a command is stopped")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds after which it is")
    parser.add_argument("--resume", action="store_true", help="only what no earlier run has measured to its end")
    parser.add_argument("--folder", type=Path, help="for weights, images and bundles, to be kept")
    parser.add_argument("--out", type=Path, required=True, help="written with .json and .md")
    given = parser.parse_args()
    path = given.out.with_suffix(".json")
    document: Row = json.loads(path.read_text()) if path.exists() else {"rows": []}
    document |= {
        "versions": versions("onnxruntime", "onnx", "numpy"),
        "command": "python benchmarks/scale.py --out docs/measured/scale",
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in given.networks:
            for schedule in given.schedules:
                own = (name, schedule, given.golden)
                if given.resume and is_measured(document["rows"], own):
                    continue
                rows = measured(name, schedule, given.golden, folder, given)
                others = [row for row in document["rows"] if _part(row) != own]
                document["rows"] = sorted(
                    others + rows, key=lambda row: (row["golden"], row["network"], row["schedule"], row["command"])
                )
                write_out(given.out, document, markdown(document))
    print(markdown(document))


if __name__ == "__main__":
    main()
