"""From a pretrained ReLU network to few time-steps: the accuracy of each road, on the same images.

    python benchmarks/from_relu.py resnet20-relu --data cifar10_test.npz --calibration-data cifar10_train.npz \
        --tuned resnet20-relu-qcfs.safetensors --out docs/measured/from_relu

The roads: thresholds found for the ReLU network as it is, and a method that calibrates it; and the same network after
its ReLUs were swapped for QCFS and it was trained on (`--tuned`, from `cos-export train --swap-activations`). Both
under both schedules. A figure is written down as soon as it is measured, and not measured again, so the command goes on
after an interruption; several networks go into one file.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from calibration.choices import CHEAP, Choices
from calibration.data_parts import DataParts
from calibration.methods.cos import COS
from calibration.methods.half import Half
from calibration.methods.method import Method
from calibration.methods.static import Static
from calibration.preparing import Start, calibrated_by, start
from calibration.records import method_from_record
from calibration.selection import select
from calibration.sources import logits_of
from cos_export import __version__, zoo
from cos_export.accuracy import measure_accuracy
from cos_export.datasets import Dataset, load_dataset
from cos_export.decisions import decisions
from cos_export.network.schedule import Schedule
from cos_export.simulation import ann_logits
from cos_export.zoo.model_source import load_model

T = 4
SCHEDULES: tuple[Schedule, ...] = ("synchronous", "layerwise")
STATIC = Static(updates=40, samples=32)
ROADS: tuple[tuple[Method, str, int, Schedule], ...] = (
    *((Half(), rule, T, schedule) for schedule in SCHEDULES for rule in ("mmse", "percentile", "maximum")),
    *((method, "mmse", T, schedule) for method in CHEAP if not isinstance(method, Half) for schedule in SCHEDULES),
    (COS(rho=4), "mmse", T, "synchronous"),
    *((Half(), "mmse", steps, schedule) for steps in (2, 8) for schedule in SCHEDULES),
    *((STATIC, "mmse", T, schedule) for schedule in SCHEDULES),
)
"""Method, rule for the thresholds, T and schedule, in the order in which they are measured."""


_STATES = {"relu": "as it is", "tuned": "fine-tuned"}


def measured(
    module: nn.Module, parts: DataParts, held_out: Dataset, known: list[dict[str, Any]], device: str
) -> Iterator[dict[str, Any]]:
    """A row for each road that is not known yet; what has no thresholds to find is measured by one rule."""
    ruled = True
    starts: dict[tuple[str, int, str], Start] = {}
    for method, rule, steps, schedule in ROADS:
        key = {"method": method.record(), "thresholds": rule, "steps": steps, "schedule": schedule}
        if any(all(row[name] == value for name, value in key.items()) for row in known):
            continue
        if method.schedule_refusal(schedule) or (not ruled and rule != "mmse"):
            continue
        choices = Choices(method, steps, thresholds=rule, schedule=schedule, device=device)
        if (rule, steps, schedule) not in starts:
            starts[rule, steps, schedule] = start(module, parts, choices)
        begun = starts[rule, steps, schedule]
        ruled = bool(begun.thresholds)
        if not ruled and rule != "mmse":
            continue
        candidate = calibrated_by(method, begun, parts, choices)
        row = measure_accuracy(
            candidate.network, parts.evaluation, [steps], calibration=candidate.per_sample, device=device
        )
        # How close it comes on images held out is what `--method auto` decides by.
        held = ann_logits(begun.reference, held_out.images, device=device)
        _, selection = select(begun.captured, [candidate], held_out, held, steps, named=True, skipped={}, device=device)
        yield key | {
            "total_steps": method.rho + steps,
            "latency": row.latency[steps],
            "accuracy": row.accuracy[steps],
            "divergence": {score.method: score.divergence for score in selection.scores}[method.name],
        }


def markdown(document: Mapping[str, Any]) -> str:
    """The tables: one for each network."""
    parts = []
    for name, network in document["networks"].items():
        right = " and ".join(f"{100 * share:.1f} % {_STATES[kind]}" for kind, share in network["accuracy"].items())
        lines = [
            f"`{name}`: {right}, on {network['samples']:,} test images, as an artificial network.",
            "",
            "| road | thresholds | schedule | T | steps at inference | latency | accuracy | distance |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for kind, words in _STATES.items():
            for row in sorted(network["rows"][kind], key=_rank):
                rule = row["thresholds"] if kind == "relu" else "trained"
                lines.append(f"| {words}, `{_words(row['method'])}` | {rule} | {_cells(row)}")
            for schedule in SCHEDULES:
                if chosen := chosen_by_auto(network["rows"][kind], schedule):
                    rule = chosen["thresholds"] if kind == "relu" else "trained"
                    lines.append(
                        f"| {words}, `auto`, which takes `{chosen['method']['name']}` | {rule} | {_cells(chosen)}"
                    )
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def chosen_by_auto(rows: list[dict[str, Any]], schedule: str) -> dict[str, Any] | None:
    """Of the methods that `--method auto` tries the one that is closest on images held out; None if one is missing."""
    names = [method.name for method in CHEAP]
    tried = [
        row
        for row in rows
        if row["schedule"] == schedule
        and row["steps"] == T
        and row["thresholds"] == "mmse"
        and row["method"]["name"] in names
    ]
    return min(tried, key=lambda row: row["divergence"]) if len(tried) == len(names) else None


def _cells(row: Mapping[str, Any]) -> str:
    cells = [row["schedule"], row["steps"], row["total_steps"], f"{row['latency']:g}"]
    cells += [f"{100 * row['accuracy']:.1f}", f"{row['divergence']:.3f}"]
    return " | ".join(map(str, cells)) + " |"


def _words(record: Mapping[str, Any]) -> str:
    method = method_from_record(dict(record))
    return method.name + (f", rho = {method.rho}" if method.rho else "")


def _rank(row: Mapping[str, Any]) -> tuple[int, str, int]:
    return row["steps"], row["schedule"], -round(1e6 * row["accuracy"])


def _share(module: nn.Module, data: Dataset, device: str) -> float:
    return float((decisions(logits_of(module, data, device)) == data.truth).mean())


def main() -> None:
    """Measures one network and writes .json and .md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=[name for name in zoo.names() if zoo.entry(name).levels is None])
    parser.add_argument("--weights", type=Path, help="of the ReLU network, by default those that are shipped")
    parser.add_argument("--tuned", type=Path, help="weights of train --swap-activations")
    parser.add_argument("--data", required=True)
    parser.add_argument("--calibration-data", required=True)
    parser.add_argument("--samples", type=int, default=1000, help="test images")
    parser.add_argument("--calibration-samples", type=int, default=256)
    parser.add_argument("--held-out", type=int, default=64, help="images that tell the distance")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    test = load_dataset(given.data).first(given.samples)
    calibration, held_out = load_dataset(given.calibration_data).split_at(given.calibration_samples)
    parts, held_out = DataParts(calibration, test), held_out.first(given.held_out)
    file = given.out.with_suffix(".json")
    document = json.loads(file.read_text()) if file.exists() else {"networks": {}}
    weights = {"relu": given.weights} | ({} if given.tuned is None else {"tuned": given.tuned})
    about = {
        "samples": len(test),
        "calibration_samples": len(calibration),
        "held_out_samples": len(held_out),
        "versions": {"cos-export": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    network = document["networks"].setdefault(given.model, {**about, "accuracy": {}, "rows": {}})
    if {key: network[key] for key in about} != about:
        parser.error(f"{file} holds figures of {given.model} of other images. Remove it.")
    file.parent.mkdir(parents=True, exist_ok=True)
    for kind, path in weights.items():
        module = load_model(given.model, path).module
        share = _share(module, test, given.device)
        if network["accuracy"].setdefault(kind, share) != share:
            parser.error(f"{file} holds figures of {given.model} with other weights. Remove it.")
        rows = network["rows"].setdefault(kind, [])
        for row in measured(module, parts, held_out, rows, given.device):
            rows.append(row)
            file.write_text(json.dumps(document, indent=2) + "\n")
            print(kind, row, flush=True)
    given.out.with_suffix(".md").write_text(markdown(document))


if __name__ == "__main__":
    main()
