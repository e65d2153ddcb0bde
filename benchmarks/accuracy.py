"""Accuracy of every calibration method at every T, as a table and a picture.

    python benchmarks/accuracy.py digits --data digits --out docs/measured/digits

A static method that depends on T is calibrated anew for each T, on training images, and measured at that T on the
test images. With several seeds the mean is listed, and half the range as its spread. Per-sample methods are listed with
T_total = rho + T. What one run measures is added to what --out holds already.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from calibration import calibrate, method_names, needs_data, per_sample_method, static_method
from calibration.conversion import CALIBRATION_SAMPLES
from cos_export import __version__
from cos_export.accuracy import READOUTS, measure_accuracy
from cos_export.capturing import capture
from cos_export.datasets import Dataset, load_dataset
from cos_export.model_source import load_model
from cos_export.network import SpikingNetwork
from cos_export.report.charts import accuracy_chart
from cos_export.terminal.progress_bars import progress_bars
from cos_export.training import accuracy


@dataclass(frozen=True)
class Measured:
    """One method, as it is called in the table: accuracy by T, and how far the seeds are apart."""

    method: str
    rho: int
    accuracy: dict[int, float]
    spread: dict[int, float] | None = None
    details: dict[str, Any] | None = None


def static(
    network: SpikingNetwork,
    name: str,
    given: argparse.Namespace,
    train: Dataset,
    test: Dataset,
    **options: Any,
) -> Iterator[Measured]:
    """A static method, calibrated for each T and seed where it looks at the data: the row as it grows."""
    if not needs_data(name):
        yield Measured(name, 0, measure_accuracy(network, test, READOUTS, **options).accuracy)
        return
    chosen: dict[str, Any] = {}
    seeds: list[int | None] = [None]
    if name == "static":
        chosen = {"tune": tuple(given.tune.split(",")), "updates": given.updates, "samples": given.batch}
        seeds = list(range(given.seeds))
    label = name if chosen.get("tune", ("potential",)) == ("potential",) else f"{name} ({', '.join(chosen['tune'])})"
    details: dict[str, Any] = {"calibration_samples": len(train)}
    if chosen:
        details |= {**chosen, "tune": list(chosen["tune"]), "seeds": len(seeds)}
    found: dict[int, list[float]] = {}
    for steps in given.steps:
        for seed in seeds:
            method = static_method(name, chosen if seed is None else chosen | {"seed": seed})
            calibrated = calibrate(network, train.images, method, steps, **options)
            found.setdefault(steps, []).append(measure_accuracy(calibrated, test, [steps], **options).accuracy[steps])
            yield Measured(
                label,
                0,
                {t: sum(shares) / len(shares) for t, shares in found.items()},
                {t: (max(shares) - min(shares)) / 2 for t, shares in found.items()} if len(seeds) > 1 else None,
                details,
            )


def markdown(document: dict[str, Any]) -> str:
    """The table: T in the columns, T_total in brackets where it differs, the spread of seeds behind a plus-minus."""
    lines = ["| method | extra steps | " + " | ".join(f"T = {t}" for t in READOUTS) + " |"]
    lines.append("| --- | --- |" + " --- |" * len(READOUTS))
    for row in document["methods"]:
        cells = [_cell(row, str(t)) for t in READOUTS]
        lines.append(f"| `{row['method']}` | {row['rho']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: dict[str, Any], t: str) -> str:
    if t not in row["accuracy"]:
        return ""
    share = f"{100 * row['accuracy'][t]:.2f}"
    spread = f" +- {100 * row['spread'][t]:.2f}" if row.get("spread") else ""
    return share + spread + (f" ({int(t) + row['rho']})" if row["rho"] else "")


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data", required=True, help="a named data set, or the .npz to measure on")
    parser.add_argument("--calibration-data", help="the .npz to calibrate on, if --data is a file")
    parser.add_argument("--samples", type=int, default=CALIBRATION_SAMPLES, help="images to calibrate on")
    parser.add_argument("--test-samples", type=int, help="the first images only, and not all, to measure on")
    parser.add_argument("--rho", type=int, default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tune", default="potential", help="what static tunes, with commas")
    parser.add_argument("--updates", type=int, default=300, help="gradient steps of static")
    parser.add_argument("--batch", type=int, default=64, help="images in each gradient step of static")
    parser.add_argument("--seeds", type=int, default=1, help="of static: 0, 1, ...")
    parser.add_argument("--steps", type=lambda t: [int(n) for n in t.split(",")], default=list(READOUTS))
    parser.add_argument("--methods", help="only these, with commas")
    parser.add_argument("--out", type=Path, required=True, help="written with .json, .md and .svg")
    given = parser.parse_args()
    test = load_dataset(given.data, "test").first(given.test_samples)
    train = load_dataset(given.calibration_data or given.data, "train").first(given.samples)
    module = load_model(given.model, given.weights).module
    network = capture(module, test.images[:2])
    chosen = given.methods.split(",") if given.methods else list(method_names())
    ann = accuracy(module, test, device=given.device)
    rows = kept_rows(given.out.with_suffix(".json"))
    with progress_bars() as progress:
        options = {"device": given.device, "progress": progress}
        for name in chosen:
            method = per_sample_method(name, given.rho)
            if method is None:
                grown = static(network, name, given, train, test, **options)
            else:
                row = measure_accuracy(network, test, READOUTS, calibration=method, **options)
                grown = iter([Measured(name, given.rho, row.accuracy)])
            for measured in grown:
                rows[measured.method] = merged(rows.get(measured.method), measured)
                write(given, document(given, ann, train, test, sorted(rows.values(), key=place)))
    print(given.out.with_suffix(".md").read_text())


def kept_rows(path: Path) -> dict[str, Measured]:
    """What an earlier run has written."""
    if not path.exists():
        return {}

    def by_steps(shares: dict[str, float] | None) -> dict[int, float] | None:
        return None if shares is None else {int(t): share for t, share in shares.items()}

    return {
        row["method"]: Measured(
            row["method"], row["rho"], by_steps(row["accuracy"]) or {}, by_steps(row.get("spread")), row.get("details")
        )
        for row in json.loads(path.read_text())["methods"]
    }


def merged(old: Measured | None, new: Measured) -> Measured:
    """The new row with the other T of an old one that was measured in the same way."""
    if old is None or (old.rho, old.details) != (new.rho, new.details):
        return new
    spread = None if new.spread is None else {**(old.spread or {}), **new.spread}
    return replace(new, accuracy=dict(sorted({**old.accuracy, **new.accuracy}.items())), spread=spread)


def place(row: Measured) -> tuple[int, str]:
    """Where a row stands in the table: in the order of the methods' names."""
    return method_names().index(row.method.split(" ")[0]), row.method


def document(
    given: argparse.Namespace, ann: float, train: Dataset, test: Dataset, rows: list[Measured]
) -> dict[str, Any]:
    """All that was measured, and on what."""
    return {
        "model": given.model,
        "ann_accuracy": ann,
        "test_data": test.name,
        "test_samples": len(test),
        "calibration_data": train.name,
        "methods": [json.loads(json.dumps(asdict(row))) for row in rows],
        "versions": {"cos-export": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }


def write(given: argparse.Namespace, measured: dict[str, Any]) -> None:
    """The .json, the .md and the .svg, after each method, so that an interruption loses one at most."""
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.with_suffix(".json").write_text(json.dumps(measured, indent=2) + "\n")
    table = f"ANN {100 * measured['ann_accuracy']:.2f} % on {measured['test_samples']} images."
    given.out.with_suffix(".md").write_text(f"{table}\n\n{markdown(measured)}\n")
    given.out.with_suffix(".svg").write_text(accuracy_chart(measured))


if __name__ == "__main__":
    main()
