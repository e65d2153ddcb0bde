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

from calibration import calibrate, method_names, needs_data, per_sample_method
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
    parser.add_argument("--samples", type=int, default=CALIBRATION_SAMPLES, help="images to calibrate on")
    parser.add_argument("--test-samples", type=int, help="the first images only, and not all, to measure on")
    parser.add_argument("--rho", type=int, default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--methods", help="only these, with commas; the rows of others in --out are kept")
    parser.add_argument("--out", type=Path, required=True, help="written with .json, .md and .svg")
    given = parser.parse_args()
    test = load_dataset(given.data, "test").first(given.test_samples)
    train = load_dataset(given.calibration_data or given.data, "train").first(given.samples)
    module = load_model(given.model, given.weights).module
    network = capture(module, test.images[:2])
    chosen = given.methods.split(",") if given.methods else list(method_names())
    ann = accuracy(module, test, device=given.device)
    rows = kept_rows(given.out.with_suffix(".json"), chosen)
    with progress_bars() as progress:
        options = {"device": given.device, "progress": progress}
        for name in chosen:
            method = per_sample_method(name, given.rho)
            if method is None:
                rows[name] = static(network, name, train, test, **options)
            else:
                row = measure_accuracy(network, test, READOUTS, calibration=method, **options)
                rows[name] = Measured(name, given.rho, row.accuracy)
            write(given, document(given, ann, train, test, [rows[n] for n in method_names() if n in rows]))
    print(given.out.with_suffix(".md").read_text())


def kept_rows(path: Path, chosen: list[str]) -> dict[str, Measured]:
    """What an earlier run of other methods has written."""
    if not path.exists():
        return {}
    rows = json.loads(path.read_text())["methods"]
    return {
        row["method"]: Measured(row["method"], row["rho"], {int(t): s for t, s in row["accuracy"].items()})
        for row in rows
        if row["method"] not in chosen
    }


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
        "calibration_samples": len(train),
        "methods": [
            {"method": row.method, "rho": row.rho, "accuracy": {str(t): s for t, s in row.accuracy.items()}}
            for row in rows
        ],
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
