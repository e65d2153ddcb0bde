"""Accuracy in int8 beside float32, by method and T.

    python benchmarks/int8.py resnet20 --data data/cifar10_test.npz --calibration-data data/cifar10_train.npz \
        --float32 docs/measured/resnet20.json --out docs/measured/int8
    python benchmarks/int8.py vgg9 --data data/cifar10_test.npz --calibration-data data/cifar10_train.npz \
        --float32 docs/measured/vgg9.json --out docs/measured/int8

A network is quantised on the calibration images as `--numerics int8` does it, proved for the largest T, and a method
that looks at images is calibrated after that, on the integers, for each T. What float32 reaches is what
benchmarks/accuracy.py has measured and written to --float32, on as many test images and calibrated on as many images;
another T or method is measured here. What one run measures is added to what --out holds already.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from out_files import write_out
from provenance import machine, versions

from calibration import METHODS, calibrate
from calibration.choices import CALIBRATION_SAMPLES, QUANTISATIONS
from cos_export.accuracy import READOUTS, measure_accuracy
from cos_export.capturing import capture
from cos_export.datasets import Dataset, load_dataset
from cos_export.network import SpikingNetwork
from cos_export.quantisation import quantise
from cos_export.terminal.progress_bars import progress_bars
from cos_export.zoo.model_source import load_model

Shares = dict[str, float]
"""The share of right answers by T."""


def measured(
    network: SpikingNetwork, method: str, steps: list[int], train: Dataset, test: Dataset, **options: Any
) -> Shares:
    """The accuracy at each T, of a method that looks at images after a calibration for that T."""
    if not METHODS[method].needs_data:
        accuracy = measure_accuracy(network, test, steps, **options).accuracy
        return {str(t): accuracy[t] for t in steps}
    shares = {}
    for t in steps:
        calibrated = calibrate(network, train.images, method, t, **options)
        shares[str(t)] = measure_accuracy(calibrated, test, [t], **options).accuracy[t]
    return shares


def published(path: Path | None, method: str, train: Dataset, test: Dataset) -> Shares:
    """What benchmarks/accuracy.py has measured of the method in float32, if it was measured as it is here."""
    if path is None:
        return {}
    document = json.loads(path.read_text())
    for row in document["methods"]:
        samples = (row["details"] or {}).get("calibration_samples", len(train))
        if row["method"] == method and samples == len(train) and document["test_samples"] == len(test):
            return dict(row["accuracy"])
    return {}


def markdown(document: dict[str, Any]) -> str:
    """The table: one row for each network, method and numerics."""
    lines = ["| network | method | numerics | " + " | ".join(f"T = {t}" for t in READOUTS) + " |"]
    lines.append("| --- | --- | --- |" + " --- |" * len(READOUTS))
    for row in document["rows"]:
        for numerics in ("float32", "int8"):
            shares = row[numerics]
            cells = [f"{100 * shares[str(t)]:.2f}" if str(t) in shares else "" for t in READOUTS]
            lines.append(f"| {row['network']} | `{row['method']}` | {numerics} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def written(out: Path, key: dict[str, Any], numerics: str, shares: Shares) -> None:
    """Adds one row's shares to --out.json and --out.md, so that an interruption loses one calibration at most."""
    path = out.with_suffix(".json")
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    row = next((row for row in rows if key.items() <= row.items()), None)
    if row is None:
        row = {**key, "float32": {}, "int8": {}}
        rows.append(row)
    row[numerics] = dict(sorted({**row[numerics], **shares}.items(), key=lambda pair: int(pair[0])))
    document = {
        "rows": sorted(rows, key=lambda row: (row["network"], row["method"], row["quantisation"])),
        "versions": versions(),
        "machine": machine(),
    }
    write_out(out, document, markdown(document))


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True, help="a named data set, or the .npz to measure on")
    parser.add_argument("--calibration-data", help="the .npz to calibrate on, if --data is a file")
    parser.add_argument("--samples", type=int, default=CALIBRATION_SAMPLES, help="images to calibrate on")
    parser.add_argument("--test-samples", type=int, help="the first images only, and not all, to measure on")
    parser.add_argument("--methods", default="half,mean-matching", help="with commas")
    parser.add_argument("--steps", type=lambda t: [int(n) for n in t.split(",")], default=list(READOUTS))
    parser.add_argument("--float32", type=Path, help="the .json of benchmarks/accuracy.py for the same network")
    parser.add_argument("--quantisation", default="", help=f"with commas: {', '.join(QUANTISATIONS)}")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True, help="written with .json and .md")
    given = parser.parse_args()
    test = load_dataset(given.data, "test").first(given.test_samples)
    train = load_dataset(given.calibration_data or given.data, "train").first(given.samples)
    network = capture(load_model(given.model, None).module, test.images[:2])
    chosen: dict[str, Any] = {QUANTISATIONS[name]: True for name in given.quantisation.split(",") if name}
    with progress_bars() as progress:
        options: dict[str, Any] = {"device": given.device, "progress": progress}
        integers = quantise(network, train.images, steps=max(READOUTS), **chosen, **options)
        for method in given.methods.split(","):
            key = {
                "network": given.model,
                "method": method,
                "quantisation": given.quantisation,
                "test_samples": len(test),
                "calibration_samples": len(train),
            }
            known = published(given.float32, method, train, test)
            written(given.out, key, "float32", {str(t): known[str(t)] for t in given.steps if str(t) in known})
            groups = [[t] for t in given.steps] if METHODS[method].needs_data else [given.steps]
            for steps in groups:
                written(given.out, key, "int8", measured(integers, method, steps, train, test, **options))
                missing = [t for t in steps if str(t) not in known]
                if missing:
                    written(given.out, key, "float32", measured(network, method, missing, train, test, **options))
    print(given.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
