"""What both schedules and the per-sample methods cost on one network, beside their accuracies.

    python benchmarks/costs.py digits --data digits --steps 2,4 --out docs/measured/costs

Nothing is calibrated but by the per-sample methods: both schedules run from v_init = theta / 2. Operations are counted
on the test images.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from out_files import write_out
from provenance import machine, versions

from calibration import COS, SRP
from cos_export.accuracy import measure_accuracy
from cos_export.capturing import capture
from cos_export.costing import costs
from cos_export.datasets import Dataset, load_dataset
from cos_export.network import SpikingNetwork
from cos_export.network.schedule import SCHEDULES
from cos_export.simulation import PerSampleCalibration
from cos_export.terminal.cost_lines import rounded
from cos_export.terminal.progress_bars import progress_bars
from cos_export.zoo.model_source import load_model

COLUMNS = (
    *("schedule", "method", "T", "accuracy (%)", "latency (with hops)", "next image after", "spikes", "operations"),
    *("state, bytes", "energy, uJ", "memory traffic, bytes", "bit operations"),
)


def measured(
    network: SpikingNetwork, test: Dataset, steps: int, method: PerSampleCalibration | None, **options: Any
) -> dict[str, Any]:
    """The accuracy of a network at T, and what it costs."""
    row = measure_accuracy(network, test, [steps], calibration=method, **options)
    measured = costs(network, test, steps, method, **options)
    return {"accuracy": row.accuracy[steps], **measured.to_dict()}


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the table."""
    time, done, other = row["timing"], row["operations"], row["artificial"]
    method = row["method"] + (f", rho = {row['rho']}" if row["rho"] else "")
    return [
        row["schedule"],
        method,
        str(row["num_timesteps"]),
        f"{100 * row['accuracy']:.1f}",
        f"{time['latency']} ({time['latency_with_hops']})",
        str(time["interval"]),
        rounded(done["spikes"]),
        rounded(done["synaptic_operations"]),
        rounded(row["footprint"]["state"]),
        f"{row['energy']['picojoules'] / 1e6:.2f}",
        rounded(row["energy"]["memory_traffic"]),
        rounded(other["spiking_bit_operations"]),
    ]


def artificial(row: dict[str, Any]) -> list[list[str]]:
    """The artificial network of the same bits, which computes all activations, or those that are not 0."""
    other, bits = row["artificial"], row["artificial"]["activation_bits"]
    name, pass_ = f"artificial, {bits} bits", ["", "", "", "1 pass", "", ""]
    every = (other["macs"], other["picojoules"], rounded(other["memory_traffic"]), other["bit_operations"])
    some = (other["effective_macs"], other["effective_picojoules"], "", other["effective_bit_operations"])
    return [
        [label, *pass_, rounded(macs), "", f"{energy / 1e6:.2f}", traffic, rounded(bit_operations)]
        for label, (macs, energy, traffic, bit_operations) in ((name, every), (f"{name}, zeros skipped", some))
    ]


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The table in Markdown: the artificial network of each T below what runs it exactly, layer after layer."""
    lines = []
    for row in rows:
        lines.append(cells(row))
        if row["schedule"] == "layerwise":
            lines += artificial(row)
    header = [" | ".join(COLUMNS), " | ".join("---" for _ in COLUMNS)]
    return [f"| {line} |" for line in (*header, *(" | ".join(line) for line in lines))]


def main() -> None:
    """Measures, and writes the figures as .json and the table as .md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", default="2,4")
    parser.add_argument("--rho", type=int, default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    test = load_dataset(given.data, "test")
    captured = capture(load_model(given.model, None).module, test.images[:1])
    rows = []
    with progress_bars() as progress:
        for steps in map(int, given.steps.split(",")):
            for method in (None, COS(given.rho), SRP(given.rho)):
                for schedule in SCHEDULES if method is None else SCHEDULES[:1]:
                    network = replace(captured, schedule=schedule)
                    rows.append(measured(network, test, steps, method, device=given.device, progress=progress))
    document = {
        "network": given.model,
        "dataset": test.name,
        "samples": len(test),
        "machine": machine(),
        "versions": versions(),
        "rows": rows,
    }
    head = f"{given.model}, {len(test)} images of {test.name}: the mean for one image."
    write_out(given.out, document, "\n".join([head, "", *table(rows)]) + "\n")


if __name__ == "__main__":
    main()
