"""Images per second of the C code on one core, beside ONNX Runtime, by the share of neurons that fire.

    OMP_NUM_THREADS=1 python benchmarks/c_code.py digits vgg9 resnet20 vgg16 --data data/cifar10_test.npz \
        --out docs/measured/c_code

Each network is quantised on the images, with v_init = theta / 2. Then all of its thresholds are multiplied by one
factor after the other, so that fewer neurons fire; the sums stay what they are. The C code is compiled with -O3 and
called in this process, one image at a time. ONNX Runtime runs model.onnx without collecting spikes, with one thread,
one image at a time and all at once. All take turns; figures are medians of processor time. Networks that come
without weights have random ones. What one run measures is added to what --out holds already.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from out_files import write_out
from provenance import machine

from cos_export import zoo
from cos_export.c_code import c_source, quantised_images
from cos_export.capturing import capture
from cos_export.datasets import load_dataset
from cos_export.errors import InputError
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.network.graph import with_attributes
from cos_export.network.schedule import SCHEDULES
from cos_export.onnx_file import build_model
from cos_export.onnx_file.pruning import LOGITS, without_spikes
from cos_export.onnx_file.unrolling import IMAGES
from cos_export.quantisation import quantise
from cos_export.simulation import simulate
from cos_export.zoo.model_source import build_model as build_module
from targets.c.compiler import find

OPTIONS = ("-O3", "-shared", "-fPIC")


def network_of(name: str, images: FloatArray, steps: int) -> SpikingNetwork:
    """A network of the zoo in integers, with its weights where it has some."""
    module = build_module(name)
    with suppress(InputError):  # none are shipped
        zoo.load_weights(module, zoo.weights_path(name))
    return quantise(capture(module.eval(), images[:1]), images, steps=steps, device="cpu")


def with_factor(network: SpikingNetwork, factor: float) -> SpikingNetwork:
    """The network with all thresholds times `factor`, and v_init = theta / 2."""
    specs = {}
    for name, spec in network.neurons.items():
        threshold = np.maximum(np.rint(spec.threshold * factor), 1).astype(np.float32)
        specs[name] = replace(spec, threshold=threshold, v_init=np.floor(threshold / 2) + np.float32(0.5))
    nodes = {name: with_attributes(network.graph.nodes[name], v_threshold=specs[name].threshold) for name in specs}
    return replace(network.with_nodes(nodes), neurons=specs)


def c_engine(network: SpikingNetwork, images: FloatArray, steps: int, folder: Path) -> Callable[[], None]:
    """What classifies all images with the C code."""
    source, compiler = c_source(network, steps, "network"), find()
    (folder / "network.h").write_text(source.header)
    (folder / "network.c").write_text(source.code)
    library = folder / f"{len(list(folder.iterdir()))}.so"
    compiler.compile([folder / "network.c"], library, OPTIONS, seconds=3600)
    run = ctypes.CDLL(str(library)).network_run
    state = (ctypes.c_int32 * (source.state_bytes // 4 + 1))()
    quantised = np.ascontiguousarray(quantised_images(network, images))
    pointers = [ctypes.c_void_p(image.ctypes.data) for image in quantised]

    def classify(held: Any = quantised) -> None:
        for pointer in pointers:
            run(state, pointer)

    return classify


def onnx_engine(network: SpikingNetwork, images: FloatArray, steps: int, batch: int) -> Callable[[], None]:
    """What classifies all images in ONNX Runtime, so many at once."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = without_spikes(build_model(network, steps)).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def classify() -> None:
        for start in range(0, len(images), batch):
            session.run([LOGITS], {IMAGES: images[start : start + batch]})

    return classify


def measured(network: SpikingNetwork, images: FloatArray, steps: int, runs: int, factor: float) -> dict[str, Any]:
    """Images per second of each engine, medians of runs that take turns."""
    trace = simulate(network, images, steps, device="cpu")
    fired = sum(int(spikes.sum()) for spikes in trace.spikes.values())
    with tempfile.TemporaryDirectory() as place:
        engines = {
            "c": c_engine(network, images, steps, Path(place)),
            "onnxruntime, 1": onnx_engine(network, images, steps, 1),
            f"onnxruntime, {len(images)}": onnx_engine(network, images, steps, len(images)),
        }
        taken: dict[str, list[float]] = {name: [] for name in engines}
        for number in range(runs + 1):
            for name, engine in engines.items():
                begun = time.process_time()
                engine()
                if number:
                    taken[name].append(time.process_time() - begun)
    return {
        "schedule": network.schedule,
        "steps": steps,
        "factor": factor,
        "firing": fired / (network.neuron_count * steps * len(images)),
        "images_per_second": {name: len(images) / statistics.median(values) for name, values in taken.items()},
    }


def markdown(document: dict[str, Any]) -> str:
    """The table."""
    lines = [
        "# Speed of the C code",
        "",
        f"Images per second of one core, medians of {document['runs']} runs in turn, {document['samples']} images.",
        "",
        f"* C: {document['compiler']}, {' '.join(document['options'])}; one image at a time, in integers.",
        f"* ONNX Runtime {document['onnxruntime']}, one thread: one image at a time, and all at once.",
        f"* Machine: {document['machine']}.",
        "* Firing: the share of neurons and steps with a spike. It falls as all thresholds are multiplied by more.",
        "",
        f"    {document['command']}",
        "",
        "| network | schedule, T | firing | C | ONNX Runtime, one | all at once | C / one | C / all |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, rows in document["networks"].items():
        for row in rows:
            own, one, many = row["images_per_second"].values()
            lines.append(
                f"| {name} | {row['schedule']}, {row['steps']} | {100 * row['firing']:.1f} % | {own:,.0f} | "
                f"{one:,.0f} | {many:,.0f} | {own / one:.2f} | {own / many:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes .json and .md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--data", help="Images for all networks but digits.")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--factors", default="1,2,4", help="Of the thresholds.")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    file = given.out.with_suffix(".json")
    document = json.loads(file.read_text()) if file.exists() else {"networks": {}}
    for name in given.networks:
        data = "digits" if name == "digits" else given.data
        images = (
            load_dataset(data).images[:64]
            if data
            else np.random.default_rng(0).random((64, *zoo.entry(name).input_shape), np.float32)
        )
        network = network_of(name, images, given.steps)
        rows = []
        for schedule in SCHEDULES:
            for factor in map(float, given.factors.split(",")):
                changed = replace(with_factor(network, factor), schedule=schedule)
                rows.append(measured(changed, images[: given.samples], given.steps, given.runs, factor))
                print(name, rows[-1], file=sys.stderr)
        document["networks"][name] = rows
    document |= {
        "samples": given.samples,
        "runs": given.runs,
        "options": list(OPTIONS),
        "compiler": find().version,
        "onnxruntime": onnxruntime.__version__,
        "machine": machine(),
        "command": f"OMP_NUM_THREADS=1 python benchmarks/c_code.py {' '.join(document['networks'])} --data "
        f"data/cifar10_test.npz --samples {given.samples} --runs {given.runs} --out docs/measured/c_code",
    }
    write_out(given.out, document, markdown(document))
    print(given.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
