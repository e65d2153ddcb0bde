"""Accuracy of every calibration method at every T, as a table and a picture.

    python benchmarks/accuracy.py digits --data digits --out docs/measured/digits

A static method that depends on T is calibrated anew for each T, on training images, and measured at that T on the
test images. Per-sample methods are listed with T_total = rho + T.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from calibration import STATIC, calibrate, needs_data, per_sample_method
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
    """One method: accuracy by T."""

    method: str
    rho: int
    accuracy: dict[int, float]


def static(network: SpikingNetwork, method: str, train: Dataset, test: Dataset, **options: Any) -> Measured:
    """A static method, calibrated for each T where it looks at the data."""
    if not needs_data(method):
        return Measured(method, 0, measure_accuracy(network, test, READOUTS, **options).accuracy)
    shares = {}
    for steps in READOUTS:
        calibrated = calibrate(network, train.images, method, steps, **options)
        shares[steps] = measure_accuracy(calibrated, test, [steps], **options).accuracy[steps]
    return Measured(method, 0, shares)


def markdown(document: dict[str, Any]) -> str:
    """The table: T in the columns, T_total in brackets where it differs."""
    lines = ["| method | extra steps | " + " | ".join(f"T = {t}" for t in READOUTS) + " |"]
    lines.append("| --- | --- |" + " --- |" * len(READOUTS))
    for row in document["methods"]:
        shares = [
            f"{100 * share:.2f}" + (f" ({int(t) + row['rho']})" if row["rho"] else "")
            for t, share in row["accuracy"].items()
        ]
        lines.append(f"| `{row['method']}` | {row['rho']} | " + " | ".join(shares) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data", required=True, help="a named data set, or the .npz to measure on")
    parser.add_argument("--calibration-data", help="the .npz to calibrate on, if --data is a file")
    parser.add_argument("--samples", type=int, default=CALIBRATION_SAMPLES)
    parser.add_argument("--rho", type=int, default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True, help="written with .json, .md and .svg")
    given = parser.parse_args()
    test = load_dataset(given.data, "test")
    train = load_dataset(given.calibration_data or given.data, "train").first(given.samples)
    module = load_model(given.model, given.weights).module
    network = capture(module, test.images[:2])
    with progress_bars() as progress:
        options = {"device": given.device, "progress": progress}
        rows = [static(network, method, train, test, **options) for method in STATIC]
        for name in ("srp", "cos"):
            method = per_sample_method(name, given.rho)
            row = measure_accuracy(network, test, READOUTS, calibration=method, **options)
            rows.append(Measured(name, given.rho, row.accuracy))
    document = {
        "model": given.model,
        "ann_accuracy": accuracy(module, test, device=given.device),
        "test_data": test.name,
        "test_samples": len(test),
        "calibration_data": train.name,
        "calibration_samples": len(train),
        "methods": [
            {"method": row.method, "rho": row.rho, "accuracy": {str(t): s for t, s in row.accuracy.items()}}
            for row in rows
        ],
        "versions": {"cos-export": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")
    table = f"ANN {100 * document['ann_accuracy']:.2f} % on {len(test)} images.\n\n{markdown(document)}\n"
    given.out.with_suffix(".md").write_text(table)
    given.out.with_suffix(".svg").write_text(accuracy_chart(document))
    print(table)


if __name__ == "__main__":
    main()
