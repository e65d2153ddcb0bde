"""Which topologies convert, how exactly, and what it costs: `check` and a conversion of each, with random weights.

    python benchmarks/networks.py --out docs/measured/networks

Each network is built, its batch norms see noise, and 16 random inputs are its data. ReLUs get the highest activation
as their threshold; T is 4 under the layer-wise schedule. "off by" is the largest difference of the network's outputs
from the module's, both artificial, in units of the module's largest output; parity is that of ONNX Runtime on 8 inputs,
spike for spike, end to end and locally; "int8" is the largest share of how much a current varies that the rounding of
weights to integers changes of it, of all layers and the readout; weights are those of synapses, in thousands, of the
network and of the module. Seconds are CPU seconds of this process, of `check` and of everything after it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from out_files import write_out
from provenance import versions
from topologies import TOPOLOGIES
from topologies.blocks import with_statistics
from torch import nn

import cos_export as ce
from cos_export.capturing import captured
from cos_export.capturing.options import check_options
from cos_export.capturing.tail import flat
from cos_export.errors import ResolutionWarning
from cos_export.exporting import export_and_verify
from cos_export.module_logits import module_logits
from cos_export.network.node_facts import facts
from cos_export.quantisation.current_errors import current_errors
from cos_export.simulation import ann_logits
from cos_export.terminal.progress_bars import progress_bars
from targets.verification import resolve

STEPS, SAMPLES, GOLDEN = 4, 16, 8

Row = dict[str, Any]


def measured(name: str) -> Row:
    """What comes of one topology."""
    shape, build = TOPOLOGIES[name]
    module = with_statistics(build, shape)
    images = np.random.default_rng(0).random((SAMPLES, *shape), dtype=np.float32)
    started = time.process_time()
    checked = ce.check_model(module, images[:1], assume_thresholds=True)
    row: Row = {
        "network": name,
        "input": list(shape),
        "module_weights": sum(p.numel() for p in module.parameters() if p.ndim > 1),
        "check_seconds": time.process_time() - started,
        "converts": checked.passed,
        "reason": None if checked.passed else _reason(checked.blockers[0]),
    }
    if not checked.passed:
        return row
    started = time.process_time()
    try:
        network, converted = _converted(module, images)
        row |= converted
    except ce.CosExportError as error:
        return row | {
            "converts": False,
            "reason": str(error).splitlines()[0],
            "convert_seconds": time.process_time() - started,
        }
    row["convert_seconds"] = time.process_time() - started
    return row | _integers(network, images)


def _integers(network: ce.SpikingNetwork, images: np.ndarray[Any, np.dtype[np.float32]]) -> Row:
    """What rounding changes of the current that it changes most."""
    started = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResolutionWarning)
            integers = ce.quantise(network, images, steps=STEPS, device="cpu")
    except ce.CosExportError as error:
        return {"int8_off_by": None, "int8_reason": str(error).splitlines()[0]}
    seconds = time.process_time() - started
    errors = current_errors(network, integers, images, STEPS, torch.device("cpu"))
    worst = max(errors, key=lambda name: errors[name])
    return {"int8_off_by": errors[worst], "int8_worst": worst, "int8_seconds": seconds}


def _reason(finding: ce.Finding) -> str:
    where = f"{finding.module}: " if finding.module else ""
    return f"{where}{finding.op}: {finding.blocker}"


def _converted(module: nn.Module, images: np.ndarray[Any, np.dtype[np.float32]]) -> tuple[ce.SpikingNetwork, Row]:
    thresholds = ce.relu_thresholds(module, images, "maximum", steps=STEPS)
    made = captured(module, images[:1], check_options(None, thresholds, "exact"))
    outputs = flat(module_logits(module, torch.from_numpy(images), device=torch.device("cpu")))
    readout = torch.from_numpy(ann_logits(made.network, images, device="cpu", unclipped=made.unbounded))
    network = ce.calibrate(made.network, images, "half", STEPS, schedule="layerwise", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        bundle, parity = export_and_verify(
            network,
            Path(folder) / "bundle",
            STEPS,
            golden=images[:GOLDEN],
            targets=resolve(["onnxruntime"]),
            device="cpu",
        )
        size = sum(file.stat().st_size for file in bundle.path.iterdir())
    weights = 0
    for node in network.graph.nodes.values():
        if (held := facts(node).weights) is not None:
            weights += int(np.asarray(getattr(node, held)).size)
    return network, {
        "off_by": float((made.tail(readout) - outputs).abs().max() / outputs.abs().max()),
        "parity": parity is not None and parity.passed,
        "mismatches": 0 if parity is None else parity["onnxruntime"].mismatches,
        "weights": weights,
        "layers": len(network.layers),
        "bundle_bytes": size,
    }


def markdown(document: Mapping[str, Any]) -> str:
    """The table; "int8" is in it where a row has been measured with it."""
    names = [
        "network",
        "converts",
        "off by",
        "parity",
        "weights",
        "of the module",
        "layers",
        "check (s)",
        "convert (s)",
    ]
    integers = any("int8_off_by" in row for row in document["rows"])
    if integers:
        names.append("int8")
    lines = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    for row in document["rows"]:
        start = f"| {row['network']} |"
        check, weights = f"{row['check_seconds']:.1f}", f"{row['module_weights'] / 1000:.1f}"
        last = f" {_integer_cell(row)} |" if integers else ""
        if not row["converts"]:
            reason = row["reason"].replace("|", "\\|")
            lines.append(f"{start} no: {reason} | | | | {weights} | | {check} | |{last}")
            continue
        parity = "yes" if row["parity"] else "NO"
        cells = [f"{row['off_by']:.0e}", parity, f"{row['weights'] / 1000:.1f}", weights, str(row["layers"]), check]
        lines.append(f"{start} yes | {' | '.join(cells)} | {row['convert_seconds']:.1f} |{last}")
    converted = [row for row in document["rows"] if row["converts"]]
    passed = sum(row["parity"] for row in converted)
    lines += ["", f"{len(converted)} of {len(document['rows'])} convert; {passed} of these pass parity."]
    return "\n".join(lines) + "\n"


def _integer_cell(row: Row) -> str:
    if "int8_off_by" not in row:
        return ""
    return "no" if row["int8_off_by"] is None else f"{row['int8_off_by']:.3f}"


def known(path: Path | None) -> dict[str, Row]:
    """The rows that a file of an earlier run holds, by name."""
    if path is None or not path.exists():
        return {}
    return {row["network"]: row for row in json.loads(path.read_text())["rows"]}


def main() -> None:
    """Measures all topologies, or some, and writes .json and .md after each; other rows that are there stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="topologies; by default all")
    parser.add_argument("--out", type=Path, help="where to write, without a suffix")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in TOPOLOGIES]:
        parser.error(f"There is no {', '.join(unknown)}. There are: {', '.join(TOPOLOGIES)}.")
    names = given.names or list(TOPOLOGIES)
    rows = known(None if given.out is None else given.out.with_suffix(".json"))
    document: dict[str, Any] = {
        "steps": STEPS,
        "samples": SAMPLES,
        "golden": GOLDEN,
        "rows": [],
        "versions": versions(),
    }
    with progress_bars() as progress:
        for number, name in enumerate(names):
            progress("converting topologies", number, len(names))
            rows[name] = measured(name)
            document["rows"] = [rows[one] for one in TOPOLOGIES if one in rows]
            if given.out is not None:
                write_out(given.out, document, markdown(document))
        progress("converting topologies", len(names), len(names))
    print(markdown(document))


if __name__ == "__main__":
    main()
