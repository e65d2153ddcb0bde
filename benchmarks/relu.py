"""A plain ReLU network beside the QCFS network of the same shape, trained alike: accuracy by T and kind of threshold.

    python benchmarks/relu.py digits --data digits --out docs/measured/relu_digits

The ReLU network's thresholds come from training images, for the T of each column; its potentials start at half of them
(`half`) or are calibrated for that T (`mean-matching`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from out_files import write_out
from provenance import versions
from torch import nn

from calibration import calibrate
from calibration.choices import CALIBRATION_SAMPLES
from calibration.thresholds import relu_thresholds
from cos_export import QCFS, zoo
from cos_export.accuracy import measure_accuracy
from cos_export.capturing import capture
from cos_export.datasets import Dataset, load_dataset
from cos_export.terminal.progress_bars import progress_bars
from cos_export.training import Recipe, accuracy, train
from cos_export.zoo.model_source import load_model

STEPS = (1, 2, 4, 8, 16, 32)
KINDS = (("maximum", False), ("percentile", False), ("mmse", False), ("mmse", True))


def with_relus(module: nn.Module) -> nn.Module:
    """The module with a ReLU in the place of each QCFS."""
    for name, child in module.named_children():
        if isinstance(child, QCFS):
            setattr(module, name, nn.ReLU())
        else:
            with_relus(child)
    return module


def measured(module: nn.Module, calibration: Dataset, test: Dataset, **options: Any) -> Iterator[dict[str, Any]]:
    """The rows of the ReLU network: one for each kind of threshold and method."""
    for kind, per_channel in KINDS:
        shares: dict[str, dict[str, float]] = {"half": {}, "mean-matching": {}}
        for steps in STEPS:
            thresholds = relu_thresholds(
                module, calibration.images, kind, per_channel=per_channel, steps=steps, **options
            )
            network = capture(module, test.images[:2], thresholds=thresholds)
            for method, by_steps in shares.items():
                tuned = calibrate(network, calibration.images, method, steps, **options)
                by_steps[str(steps)] = measure_accuracy(tuned, test, [steps], **options).accuracy[steps]
        label = f"ReLU, {kind}{', per channel' if per_channel else ''}"
        yield from ({"network": label, "method": method, "accuracy": by_steps} for method, by_steps in shares.items())


def markdown(document: dict[str, Any]) -> str:
    """The table."""
    lines = ["| network | method | ANN | " + " | ".join(f"T = {t}" for t in STEPS) + " |"]
    lines.append("| --- | --- | --- |" + " --- |" * len(STEPS))
    for row in document["rows"]:
        ann = document["ann_accuracy"]["QCFS" if row["network"].startswith("QCFS") else "ReLU"]
        cells = [f"{100 * row['accuracy'][str(t)]:.2f}" for t in STEPS]
        lines.append(f"| {row['network']} | `{row['method']}` | {100 * ann:.2f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Trains the ReLU network, measures both and writes .json and .md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=zoo.names())
    parser.add_argument("--data", required=True, help="a named data set")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    recipe = zoo.entry(given.model).recipe or Recipe(epochs=30, learning_rate=0.1, batch_size=128)
    fitted, test = load_dataset(given.data, "train"), load_dataset(given.data, "test")
    calibration = fitted.first(min(CALIBRATION_SAMPLES, len(fitted)))
    quantised = load_model(given.model).module
    plain = with_relus(zoo.build(given.model, seed=recipe.seed))
    with progress_bars() as progress:
        options = {"device": given.device, "progress": progress}
        trained = train(plain, fitted, recipe, test=test, **options)
        network = capture(quantised, test.images[:2])
        shares = measure_accuracy(network, test, STEPS, **options).accuracy
        rows = [{"network": "QCFS, L = 4", "method": "half", "accuracy": {str(t): s for t, s in shares.items()}}]
        rows += measured(plain, calibration, test, **options)
    document = {
        "model": given.model,
        "ann_accuracy": {"ReLU": trained.test_accuracy, "QCFS": accuracy(quantised, test, device=given.device)},
        "test_samples": len(test),
        "calibration_samples": len(calibration),
        "rows": rows,
        "versions": versions(),
    }
    write_out(given.out, document, markdown(document))
    print(markdown(document))


if __name__ == "__main__":
    main()
