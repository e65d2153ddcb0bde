"""What each method makes of a budget: of steps, of latency, of synaptic operations. No method is shown at its worst.

    python benchmarks/budgets.py resnet20 --data cifar10_test.npz --calibration-data cifar10_train.npz \
        --samples 2000 --out docs/measured/resnet20_budgets

Per-sample methods are measured with every split of up to --budget steps into rho and T, and stand in each table with
the best one, chosen on the very images of the table, in their favour. --networks adds calibrated networks that were
kept as NIR files (`MODEL-METHOD-T-SEED.nir`, as benchmarks/accuracy.py writes them). All rows are of the same images;
what an earlier run has measured of them stays, and --methods says what is measured now.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, product
from pathlib import Path
from typing import Any

from out_files import write_out
from provenance import machine, versions

from calibration import COS, SRP, calibrate
from calibration.choices import CALIBRATION_SAMPLES
from cos_export.accuracy import AccuracyRow, measure_accuracy
from cos_export.capturing import capture
from cos_export.costing import costs
from cos_export.datasets import Dataset, load_dataset
from cos_export.network import SpikingNetwork
from cos_export.network.schedule import SCHEDULES, Schedule
from cos_export.nir_file import read_nir
from cos_export.report.charts import COLOURS, svg
from cos_export.terminal.cost_lines import rounded
from cos_export.terminal.progress_bars import progress_bars
from cos_export.training import accuracy
from cos_export.zoo.model_source import load_model

STEPS = (1, 2, 3, 4, 6, 8, 12)
"""T of what needs no extra step."""

SHORT = (2, 3, 4, 6, 8, 12)
"""Budgets of steps of the short table, OUT_short.md."""

METHODS = ("half", "mean-matching", "ftbc", "cos", "srp")

DATA_METHODS: dict[str, tuple[Schedule, ...]] = {"mean-matching": SCHEDULES, "ftbc": ("synchronous",)}
"""Cheap methods that look at images, calibrated for each T under these schedules."""


@dataclass(frozen=True)
class Point:
    """One deployment.

    Attributes:
        label: The method, and the schedule where it is not the synchronous one.
        rho: Extra steps of each input.
        steps: T, which is what a layer fires in.
        accuracy: The share of right answers.
        latency: Steps until the readout is complete.
        operations: Synaptic operations of one image.
    """

    label: str
    rho: int
    steps: int
    accuracy: float
    latency: int
    operations: float


def points(label: str, row: AccuracyRow) -> list[Point]:
    """Every T of a row that was measured."""
    return [
        Point(label, row.rho, t, share, row.latency[t], row.synaptic_operations[t]) for t, share in row.accuracy.items()
    ]


def measured(
    network: SpikingNetwork, given: argparse.Namespace, train: Dataset, test: Dataset, **options: Any
) -> Iterator[list[Point]]:
    """All deployments, method by method."""
    steps = [t for t in STEPS if t <= given.budget]
    for schedule in SCHEDULES if "half" in given.methods else ():
        half = measure_accuracy(replace(network, schedule=schedule), test, steps, **options)
        yield points(_label("half", schedule), half)
    for path in given.networks:
        kept = read_nir(path)
        t = int(kept.num_timesteps or 0)
        yield points(_label(kept.method, kept.schedule), measure_accuracy(kept, test, [t], **options))
    for name, schedules in DATA_METHODS.items():
        for schedule, t in product(schedules, steps) if name in given.methods else ():
            calibrated = calibrate(network, train.images, name, t, schedule=schedule, **options)
            yield points(_label(name, schedule), measure_accuracy(calibrated, test, [t], **options))
    for method in (COS, SRP):
        for rho in range(1, given.rho + 1) if method.name in given.methods else ():
            splits = range(1, given.budget - rho + 1)
            yield points(method.name, measure_accuracy(network, test, splits, calibration=method(rho), **options))


def _label(method: str, schedule: Schedule) -> str:
    return method if schedule == "synchronous" else f"{method} ({schedule})"


def best(candidates: Sequence[Point], cost: Callable[[Point], float], budget: float) -> Point | None:
    """The most accurate that costs no more; of equals the cheaper one."""
    within = [point for point in candidates if cost(point) <= budget]
    return max(within, key=lambda point: (point.accuracy, -cost(point)), default=None)


def table(
    candidates: Sequence[Point], cost: Callable[[Point], float], budgets: dict[str, float], first: str = "method"
) -> str:
    """By method, the best within each budget, with its T and rho."""
    lines = [f"| {first} | " + " | ".join(budgets) + " |", "| --- |" + " --- |" * len(budgets)]
    for label in dict.fromkeys(point.label for point in candidates):
        chosen = [best([p for p in candidates if p.label == label], cost, budget) for budget in budgets.values()]
        cells = ["" if p is None else f"{100 * p.accuracy:.1f} ({_split(p)})" for p in chosen]
        lines.append(f"| `{label}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _split(point: Point) -> str:
    return f"{point.rho} + {point.steps}" if point.rho else str(point.steps)


def latencies(candidates: Sequence[Point]) -> dict[str, float]:
    """Budgets of latency: those of the layer-wise schedule, and one below them all."""
    waits = sorted({point.latency for point in candidates if point.label.endswith("(layerwise)")})
    return {f"{wait} steps": float(wait) for wait in (12, *waits) if wait >= 12}


def operation_budgets(macs: float) -> dict[str, float]:
    """Budgets of operations, in those of the artificial network."""
    return {f"{rounded(share * macs)} ({share:g}x)": share * macs for share in (0.25, 0.5, 0.75, 1, 1.5, 2, 3)}


def front(candidates: Sequence[Point], cost: Callable[[Point], float]) -> list[Point]:
    """What nothing else is both as cheap as and more accurate, by rising cost."""
    kept: list[Point] = []
    for point in sorted(candidates, key=lambda p: (cost(p), -p.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def picture(document: dict[str, Any], key: str, words: str, path: Path) -> None:
    """Accuracy over a cost: of each method the best by rising cost."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    axes = figure.subplots()
    candidates = [Point(**row) for row in document["points"]]
    labels = dict.fromkeys(point.label for point in candidates)
    for colour, label in zip(cycle(COLOURS), labels, strict=False):
        line = front([point for point in candidates if point.label == label], lambda point: getattr(point, key))
        marker = "^-" if label.endswith("(layerwise)") else "o-"
        axes.plot(
            [getattr(point, key) for point in line],
            [100 * point.accuracy for point in line],
            marker,
            color=colour,
            markersize=4,
            label=label,
        )
    ann = 100 * document["ann_accuracy"]
    axes.axhline(ann, color="#555", linestyle="--", linewidth=1, label="artificial network")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: rounded(value))
    axes.set_xlabel(words)
    axes.set_ylabel("test accuracy (%)")
    axes.set_ylim(ann - 30, ann + 2)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    path.write_text(svg(figure))


def write(given: argparse.Namespace, document: dict[str, Any]) -> None:
    """The .json, both .md and both pictures, after each method, so that an interruption loses one at most."""
    candidates = [Point(**row) for row in document["points"]]
    macs = document["artificial_macs"]
    steps = {str(total): float(total) for total in range(1, document["budget"] + 1)}
    first = (
        f"{document['model']}, the first {document['test_samples']} test images, artificial network "
        f"{100 * document['ann_accuracy']:.1f} %, {rounded(macs)} multiply-accumulates. In brackets: T, or rho + T."
    )
    parts = [
        first,
        "Within so many steps of each layer, rho + T:",
        table(candidates, lambda point: point.rho + point.steps, steps),
        "Within so many steps from an image to its readout:",
        table(candidates, lambda point: point.latency, latencies(candidates)),
        "Within so many synaptic operations for each image, in brackets as a share of the artificial network's:",
        table(candidates, lambda point: point.operations, operation_budgets(macs)),
    ]
    write_out(given.out, document, "\n\n".join(parts) + "\n")
    stem = given.out.name
    short = {f"{total} steps": cost for total, cost in steps.items() if int(total) in SHORT}
    headline = [first, table(candidates, lambda point: point.rho + point.steps, short)]
    given.out.with_name(f"{stem}_short.md").write_text("\n\n".join(headline) + "\n")
    for key, words in (
        ("operations", "synaptic operations per image"),
        ("latency", "steps from an image to its readout"),
    ):
        picture(document, key, words, given.out.with_name(f"{stem}_{key}.svg"))


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data", required=True, help="a named data set, or the .npz to measure on")
    parser.add_argument("--calibration-data", help="the .npz to calibrate on, if --data is a file")
    parser.add_argument("--samples", type=int, default=2000, help="the first images of the test part")
    parser.add_argument("--budget", type=int, default=12, help="steps, rho + T, at most")
    parser.add_argument("--rho", type=int, default=8, help="of per-sample methods, at most")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS, help="what is measured now")
    parser.add_argument("--networks", type=Path, nargs="*", default=[], help="calibrated networks, as .nir")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True, help="written with .json, two .md and two .svg")
    given = parser.parse_args()
    test = load_dataset(given.data, "test").first(given.samples)
    train = load_dataset(given.calibration_data or given.data, "train").first(CALIBRATION_SAMPLES)
    module = load_model(given.model, given.weights).module
    network = capture(module, test.images[:2])
    document: dict[str, Any] = {
        "model": given.model,
        "ann_accuracy": accuracy(module, test, device=given.device),
        "artificial_macs": artificial_macs(network, test),
        "test_data": test.name,
        "test_samples": len(test),
        "budget": given.budget,
        "versions": versions(),
        "machine": machine(),
    }
    document["points"] = kept_points(given.out.with_suffix(".json"), document)
    with progress_bars() as progress:
        for more in measured(network, given, train, test, device=given.device, progress=progress):
            document["points"] = merged(document["points"], [asdict(point) for point in more])
            write(given, document)
    write(given, document)
    print(given.out.with_suffix(".md").read_text())


def kept_points(path: Path, document: dict[str, Any]) -> list[dict[str, Any]]:
    """What an earlier run has measured of the same network on the same images."""
    if not path.exists():
        return []
    earlier = json.loads(path.read_text())
    same = all(earlier[key] == document[key] for key in ("model", "ann_accuracy", "test_data", "test_samples"))
    return earlier["points"] if same else []


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Old points and new ones, the new in the place of those of the same deployment."""
    of = {(point["label"], point["rho"], point["steps"]): point for point in (*old, *new)}
    return sorted(of.values(), key=lambda point: (_place(point["label"]), point["rho"], point["steps"]))


def _place(label: str) -> tuple[bool, str]:
    # Per-sample methods, whose cost is of another kind, stand last.
    return label in ("cos", "srp"), label


def artificial_macs(network: SpikingNetwork, test: Dataset) -> float:
    """Multiply-accumulates of one pass of the artificial network."""
    return float(costs(network, test.first(8), 1, None, device="cpu").to_dict()["artificial"]["macs"])


if __name__ == "__main__":
    main()
