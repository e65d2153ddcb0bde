"""Accuracy of every calibration method at every T, as a table and a picture.

    python benchmarks/accuracy.py digits --data digits --out docs/measured/digits

A static method that depends on T is calibrated anew for each T, on training images, and measured at that T on the
test images. With several seeds the mean is listed, and half the range as its spread. Per-sample methods are listed with
T_total = rho + T. What one run measures is added to what --out holds already, seed by seed where all else is equal.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from accuracy_tables import LAYERWISE, at_equal_cost, layerwise_table, markdown, synchronous
from out_files import write_out
from provenance import machine, versions

from calibration import METHODS, PerSampleMethod, calibrate, method_names
from calibration.choices import CALIBRATION_SAMPLES
from calibration.options import chosen_method, method_options, options_given
from cos_export.accuracy import READOUTS, measure_accuracy
from cos_export.capturing import capture
from cos_export.datasets import Dataset, load_dataset
from cos_export.network import SpikingNetwork
from cos_export.network.schedule import SCHEDULES
from cos_export.nir_file import write_nir
from cos_export.report.charts import accuracy_chart
from cos_export.terminal.progress_bars import progress_bars
from cos_export.training import accuracy
from cos_export.zoo.model_source import load_model


@dataclass(frozen=True)
class Measured:
    """One method, as it is called in the table.

    Attributes:
        method: Its name, and what it tuned.
        rho: Its extra steps for each input.
        shares: The accuracy by T, and by the seed of the calibration ("" where there is none).
        details: How it was calibrated, by T.
    """

    method: str
    rho: int
    shares: dict[int, dict[str, float]]
    details: dict[int, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The row for JSON: the mean over the seeds, half their range where there are several, and all else."""
        seeds = {t: list(shares.values()) for t, shares in self.shares.items()}
        return {
            "method": self.method,
            "rho": self.rho,
            "accuracy": {str(t): sum(shares) / len(shares) for t, shares in seeds.items()},
            "spread": {str(t): (max(shares) - min(shares)) / 2 for t, shares in seeds.items() if len(shares) > 1},
            "by_seed": {str(t): shares for t, shares in self.shares.items()},
            "details": {str(t): details for t, details in self.details.items()},
        }


def static(
    network: SpikingNetwork,
    name: str,
    given: argparse.Namespace,
    train: Dataset,
    test: Dataset,
    **options: Any,
) -> Iterator[Measured]:
    """A static method, calibrated for each T and seed where it looks at the data: each accuracy as it comes."""
    if not METHODS[name].needs_data:
        at = given.steps if network.schedule == "layerwise" else READOUTS
        shares = measure_accuracy(network, test, at, **options).accuracy
        yield Measured(labelled(name, network), 0, {t: {"": share} for t, share in shares.items()})
        return
    chosen = options_given(vars(given), name)
    start = chosen.pop("start_from", None)
    record = chosen_method(name, chosen).record()
    tuned = record.get("tune", ["potential"])
    label = labelled(name if tuned == ["potential"] else f"{name} ({', '.join(tuned)})", network)
    details = {"calibration_samples": len(train)} | {
        key: value for key, value in record.items() if key not in ("name", "seed", "start_from")
    }
    if start is not None:
        details["start_from"] = Path(str(start)).name
    seeds: list[int | None] = list(given.seeds) if "seed" in record else [None]
    for seed in seeds:
        more: dict[str, object] = {} if seed is None else {"seed": seed}
        if start is not None:
            more["start_from"] = Path(str(start).replace("{seed}", str(seed)))
        method = chosen_method(name, chosen | more)
        for steps in given.steps:
            kept = (
                None
                if given.keep is None
                else given.keep / f"{given.model}-{labelled(name, network)}-{steps}-{seed or 0}.nir"
            )
            resume = kept and kept.with_suffix(".resume.safetensors")
            calibrated = calibrate(network, train.images, method, steps, resume=resume, **options)
            if kept is not None and resume is not None:
                write_nir(calibrated, kept)
                resume.unlink(missing_ok=True)
            share = measure_accuracy(calibrated, test, [steps], **options).accuracy[steps]
            yield Measured(label, 0, {steps: {"" if seed is None else str(seed): share}}, {steps: details})


def labelled(name: str, network: SpikingNetwork) -> str:
    """What the row of a method is called: the schedule is named where it is not the synchronous one."""
    return name if network.schedule == "synchronous" else f"{name} {LAYERWISE}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes; what the command line says, or `arguments`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data", required=True, help="a named data set, or the .npz to measure on")
    parser.add_argument("--calibration-data", help="the .npz to calibrate on, if --data is a file")
    parser.add_argument("--samples", type=int, default=CALIBRATION_SAMPLES, help="images to calibrate on")
    parser.add_argument("--test-samples", type=int, help="the first images only, and not all, to measure on")
    parser.add_argument("--device", default="auto")
    add_method_options(parser)
    parser.add_argument("--seeds", type=numbers, default=[0], help="of methods that have one, with commas: 0,1,2")
    parser.add_argument("--steps", type=numbers, default=list(READOUTS), help="with commas: 1,2,4,8")
    parser.add_argument("--schedule", choices=SCHEDULES, default="synchronous", help="when layers fire")
    parser.add_argument("--methods", help="only these, with commas; none to write the tables anew")
    parser.add_argument(
        "--keep",
        type=Path,
        help="folder for what static methods have calibrated, MODEL-METHOD-T-SEED.nir, and to go on from after a kill",
    )
    parser.add_argument("--out", type=Path, required=True, help="written with .json, .md and .svg")
    given = parser.parse_args(arguments)
    if given.keep is not None:
        given.keep.mkdir(parents=True, exist_ok=True)
    test = load_dataset(given.data, "test").first(given.test_samples)
    train = load_dataset(given.calibration_data or given.data, "train").first(given.samples)
    module = load_model(given.model, given.weights).module
    network = replace(capture(module, test.images[:2]), schedule=given.schedule)
    chosen = list(method_names()) if given.methods is None else [name for name in given.methods.split(",") if name]
    ann = accuracy(module, test, device=given.device)
    rows = kept_rows(given.out.with_suffix(".json"))
    with progress_bars() as progress:
        options = {"device": given.device, "progress": progress}
        for name in chosen:
            given_here = {} if METHODS[name].needs_data else options_given(vars(given), name)
            method = chosen_method(name, given_here)
            if not isinstance(method, PerSampleMethod):
                grown = static(network, name, given, train, test, **options)
            else:
                row = measure_accuracy(network, test, READOUTS, calibration=method, **options)
                grown = iter([Measured(name, method.rho, {t: {"": share} for t, share in row.accuracy.items()})])
            for measured in grown:
                rows[measured.method] = merged(rows.get(measured.method), measured)
                write(given, document(given, ann, train, test, sorted(rows.values(), key=place)))
    write(given, document(given, ann, train, test, sorted(rows.values(), key=place)))
    print(given.out.with_suffix(".md").read_text())


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """The options of every method, as the command line of the product has them, but for the seeds."""
    for option in method_options():
        if option.flag != "seed":
            action = argparse.BooleanOptionalAction if option.kind is bool else "store"
            kind: dict[str, Any] = {} if option.kind is bool else {"type": option.kind}
            group = f"options of {', '.join(option.fields)}"
            parser.add_argument(f"--{option.flag}", action=action, help=f"{group}: {option.help}", **kind)


def numbers(listed: str) -> list[int]:
    """The numbers of a list with commas."""
    return [int(number) for number in listed.split(",")]


def kept_rows(path: Path) -> dict[str, Measured]:
    """What an earlier run has written."""
    if not path.exists():
        return {}
    return {
        row["method"]: Measured(
            row["method"],
            row["rho"],
            {int(t): shares for t, shares in row["by_seed"].items()},
            {int(t): details for t, details in row["details"].items()},
        )
        for row in json.loads(path.read_text())["methods"]
    }


def merged(old: Measured | None, new: Measured) -> Measured:
    """The old row with what is new; what was measured at the same T in another way is dropped."""
    if old is None or old.rho != new.rho:
        return new
    shares, details = dict(old.shares), old.details | new.details
    for t, by_seed in new.shares.items():
        # What an earlier version did not record was at its default.
        same = old.details.get(t, {}).items() <= new.details.get(t, {}).items()
        shares[t] = {**(shares.get(t, {}) if same else {}), **by_seed}
    return Measured(new.method, new.rho, dict(sorted(shares.items())), dict(sorted(details.items())))


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
        "methods": [row.to_dict() for row in rows],
        "versions": versions(),
        "machine": machine(),
    }


def write(given: argparse.Namespace, measured: dict[str, Any]) -> None:
    """The .json, the .md and the .svg, after each method, so that an interruption loses one at most."""
    table = f"ANN {100 * measured['ann_accuracy']:.2f} % on {measured['test_samples']} images."
    equal = at_equal_cost(measured)
    tables = [table, markdown(measured), *([f"At equal cost, in steps per input:\n\n{equal}"] if equal else [])]
    waiting = layerwise_table(measured)
    if waiting:
        tables.append(
            f"Layer after layer, each T steps long, ready after T + (T - 1) D steps for D layers:\n\n{waiting}"
        )
    write_out(given.out, measured, "\n\n".join(tables) + "\n")
    given.out.with_suffix(".svg").write_text(accuracy_chart(synchronous(measured)))


if __name__ == "__main__":
    main()
