"""What a pass under each schedule costs in ONNX Runtime, in passes of the artificial network.

    OMP_NUM_THREADS=1 python benchmarks/schedule_speed.py resnet20 vgg9 vgg16 --out docs/measured/schedule_speed

The artificial network is the same graph with a Relu in the place of each layer of neurons, which ONNX Runtime fuses
into the convolution before it: the fastest there is. All sessions have one thread and take turns in one process;
figures are medians of processor time. Weights are random ones, which change no time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import onnxruntime
import torch
from onnx import TensorProto
from out_files import write_out
from provenance import machine

from cos_export import zoo
from cos_export.capturing import capture
from cos_export.network import SpikingNetwork
from cos_export.network.graph import Convolution
from cos_export.network.node_facts import facts
from cos_export.network.wires import Wires
from cos_export.onnx_file.builder import GraphBuilder
from cos_export.onnx_file.pruning import LOGITS, without_spikes
from cos_export.onnx_file.synapses import synapse
from cos_export.onnx_file.unrolling import IMAGES
from cos_export.onnx_file.writer import build_model
from cos_export.simulation.synapses import is_multiple
from cos_export.version import __version__
from cos_export.zoo.model_source import build_model as build_module

STEPS = (4, 8)


def artificial(network: SpikingNetwork) -> bytes:
    """The network with a Relu in the place of each layer of neurons, as an ONNX model."""
    builder = GraphBuilder()
    builder.reserve(IMAGES, LOGITS)
    images = builder.input(IMAGES, ("batch", *network.input_shape), "Images.")
    wires: Wires[str] = Wires(network)
    for name, parts in wires.walk():
        value = parts[0] if parts else images
        for number, other in enumerate(parts[1:]):
            value = builder.add("Add", [value, other], f"{name}/sum{number}")
        if name in network.neurons:
            wires[name] = builder.add("Relu", [value], name)
            continue
        if _carries(network.graph.nodes[name]):
            wires[name] = value
            continue
        sources = network.predecessors[name]
        shape = network.shapes[sources[0]] if sources else network.input_shape
        apply = synapse(network.graph.nodes[name], builder, name, shape, network.shapes[name])
        wires[name] = apply(value, f"{name}/current")
    builder.add("Identity", [wires.readout], LOGITS, reserved=True)
    builder.output(LOGITS, TensorProto.FLOAT, ("batch", *network.output_shape), "Logits.")
    model = builder.model("artificial", f"cos-export {__version__}", {}, "A network of ReLUs.")
    return bytes(model.SerializeToString())


def _carries(node: nir.NIRNode) -> bool:
    """Whether it is a residual's identity path, which the artificial network has for nothing."""
    geometry = facts(node).geometry
    if not isinstance(geometry, Convolution):
        return False
    weight, bias = (torch.from_numpy(np.asarray(array, np.float32)) for array in (node.weight, node.bias))
    return is_multiple(weight, bias, geometry)


def session(model: bytes) -> onnxruntime.InferenceSession:
    """A session of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def sessions(network: SpikingNetwork) -> dict[str, onnxruntime.InferenceSession]:
    """What is compared, by what it is called in the table."""
    compared = {"artificial network": session(artificial(network))}
    for schedule in ("layerwise", "synchronous"):
        for steps in STEPS:
            model = build_model(replace(network, schedule=schedule), steps)
            compared[f"{schedule}, T = {steps}"] = session(without_spikes(model).SerializeToString())
    return compared


def measure(network: SpikingNetwork, batch: int, runs: int) -> dict[str, float]:
    """Milliseconds of processor time for one batch, medians of runs that take turns."""
    images = np.random.default_rng(0).random((batch, *network.input_shape), np.float32)
    compared = sessions(network)
    taken: dict[str, list[float]] = {}
    for number in range(runs + 1):
        for name, one in compared.items():
            begun = time.process_time()
            one.run([LOGITS], {IMAGES: images})
            if number:
                taken.setdefault(name, []).append(1000 * (time.process_time() - begun))
    return {name: statistics.median(values) for name, values in taken.items()}


def network_of(name: str) -> SpikingNetwork:
    """A network of the zoo with v_init = theta / 2."""
    entry = zoo.entry(name)
    module = build_module(name)
    return capture(module.eval(), np.zeros((1, *entry.input_shape), np.float32))


def markdown(document: dict[str, Any]) -> str:
    """The table, in passes of the artificial network."""
    columns = [name for name in document["networks"][0]["milliseconds"] if name != "artificial network"]
    lines = [
        f"In passes of the artificial network, {document['batch']} images at once, one thread, medians of "
        f"{document['runs']} runs in turn ({document['machine']}, onnxruntime {document['onnxruntime']}).",
        "",
        "| network | one pass | " + " | ".join(columns) + " |",
        "| --- | --- |" + " --- |" * len(columns),
    ]
    for row in document["networks"]:
        one = row["milliseconds"]["artificial network"]
        ratios = [f"{row['milliseconds'][name] / one:.2f}" for name in columns]
        lines.append(f"| {row['network']} | {one:.1f} ms | " + " | ".join(ratios) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes .json and .md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    rows = []
    for name in given.networks:
        rows.append({"network": name, "milliseconds": measure(network_of(name), given.batch, given.runs)})
    document = {
        "networks": rows,
        "batch": given.batch,
        "runs": given.runs,
        "onnxruntime": onnxruntime.__version__,
        "machine": machine(),
    }
    write_out(given.out, document, markdown(document))
    print(given.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
