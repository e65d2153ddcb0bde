"""This project beside other simulators: the same weights, images, T and batch, in one run.

    OMP_NUM_THREADS=1 python benchmarks/peers.py resnet20 --batch 32 --out docs/measured/peers

The network is exported to a bundle for each schedule and T. Here run the PyTorch reference and ONNX Runtime, which has
the artificial network as well; in the environment of the clients (`cos-export targets --install sinabs`) run sinabs,
snnTorch, norse and SpikingJelly on their own neurons, as `cos_export.clients` makes them of model.nir; OpenVINO runs
model.onnx where it is installed. All have one thread and take turns, each a batch in every round; figures are medians
of processor time. Spikes are recorded by the clients, which have no other way, and by nobody else.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from out_files import write_out
from provenance import command, machine, versions
from schedule_speed import artificial, session

from cos_export.bundle import Bundle
from cos_export.capturing import capture
from cos_export.clients import CLIENTS, Client
from cos_export.errors import CosExportError
from cos_export.exporting import export
from cos_export.network.schedule import SCHEDULES
from cos_export.onnx_file.pruning import LOGITS, without_spikes
from cos_export.onnx_file.unrolling import IMAGES
from cos_export.quantisation import quantise
from cos_export.simulation import simulate
from cos_export.zoo import entry
from cos_export.zoo.model_source import load_model
from targets.clients import CLIENTS_SOFTWARE
from targets.workers.environment import find

OPTIONAL = ["openvino"] if importlib.util.find_spec("openvino") else []
"""What runs beside the others where it is installed."""

Run = Callable[[], float]
"""Runs a batch and returns the seconds of processor time that it took."""

CHILD = """
import sys, time
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
from cos_export.clients import load
torch.set_num_threads(1)
network = load(sys.argv[3], client=sys.argv[2])
images = torch.from_numpy(np.load(sys.argv[4]))
with torch.no_grad():
    for line in sys.stdin:
        begun = time.process_time()
        network(images, int(sys.argv[5]))
        print(time.process_time() - begun, flush=True)
"""


def own(run: Callable[[], object]) -> Run:
    """The processor time of a run in this process."""

    def timed() -> float:
        begun = time.process_time()
        run()
        return time.process_time() - begun

    return timed


def onnx_session(bundle: Bundle, images: np.ndarray) -> Run:
    """ONNX Runtime, which computes the logits and not the spikes."""
    model = without_spikes(onnx.load(bundle.onnx_path)).SerializeToString()
    running = session(model)
    return own(lambda: running.run([LOGITS], {IMAGES: images}))


def openvino(bundle: Bundle, images: np.ndarray) -> Run:
    """OpenVINO in float32."""
    import openvino as ov

    model = without_spikes(onnx.load(bundle.onnx_path))
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder) / "model.onnx")
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
        compiled = ov.Core().compile_model(str(Path(folder) / "model.onnx"), "CPU", options)
    return own(lambda: compiled([images]))


@contextmanager
def client(name: Client, bundle: Bundle, images: Path, steps: int) -> Iterator[Run]:
    """A client in its environment: a process that runs a batch for each line."""
    python = find(CLIENTS_SOFTWARE[name]).python
    root = str(Path(__file__).resolve().parents[1])
    command = [str(python), "-P", "-c", CHILD, root, name, str(bundle.nir_path), str(images), str(steps)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise SystemExit("The process has no pipes.")

        def run() -> float:
            process.stdin.write("run\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            line = process.stdout.readline()  # type: ignore[union-attr]
            if not line:
                raise SystemExit(f"{name} has ended with exit code {process.wait()}.")
            return float(line)

        yield run
        process.stdin.close()


def contenders(
    stack: ExitStack, bundle: Bundle, images: np.ndarray, folder: Path, steps: int
) -> Iterator[tuple[str, Run]]:
    """Everything that runs this bundle, by name; what cannot is named with its reason on the terminal."""
    network = bundle.network
    yield "ONNX Runtime", onnx_session(bundle, images)
    options: dict[str, Any] = {"device": "cpu", "batch_size": len(images), "record_spikes": False}
    yield "PyTorch reference", own(lambda: simulate(network, images, steps, **options))
    if OPTIONAL:
        yield "OpenVINO", openvino(bundle, images)
    for name in CLIENTS:
        try:
            run = stack.enter_context(client(name, bundle, folder / "images.npy", steps))
            run()
        except (CosExportError, SystemExit) as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        yield name, run


def measure(given: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each schedule, numerics and T, the contenders in turn."""
    shape = entry(given.model).input_shape
    images = np.random.default_rng(0).random((given.batch, *shape), np.float32)
    captured = capture(load_model(given.model, given.weights).module, images[:1])
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        np.save(folder / "images.npy", images)
        for numerics in given.numerics:
            for schedule in SCHEDULES:
                for steps in given.steps:
                    network = replace(captured, schedule=schedule)
                    if numerics == "int8":
                        network = quantise(network, images, steps=steps)
                    bundle = export(network, folder / "bundle", steps=steps, golden=images[:1], device="cpu")
                    row = {"numerics": numerics, "schedule": schedule, "steps": steps}
                    with ExitStack() as stack:
                        running = dict(contenders(stack, bundle, images, folder, steps))
                        reference = session(artificial(captured))
                        running["artificial network"] = own(partial(reference.run, [LOGITS], {IMAGES: images}))
                        seconds: dict[str, list[float]] = {name: [] for name in running}
                        for number in range(given.rounds + 1):
                            for name, run in running.items():
                                taken = run()
                                if number:
                                    seconds[name].append(taken)
                    rows.append(row | {"seconds": {name: statistics.median(all_) for name, all_ in seconds.items()}})
                    write(given, rows)
    return rows


def write(given: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """The .json, the .md, and _short.md with the fewest steps in float32, after each row."""
    document = {
        "model": given.model,
        "batch": given.batch,
        "rounds": given.rounds,
        "machine": machine(),
        "versions": versions("onnxruntime", *OPTIONAL)
        | {name: software.packages[0].version for name, software in CLIENTS_SOFTWARE.items()},
        "command": f"OMP_NUM_THREADS=1 {command()}",
        "rows": rows,
    }
    head = (
        f"{given.model}, {given.batch} images at once, one thread, medians of {given.rounds} rounds in turn, in passes "
        "of the artificial network in ONNX Runtime."
    )
    short = [row for row in rows if row["numerics"] == "float32" and row["steps"] == min(given.steps)]
    given.out.with_name(f"{given.out.name}_short.md").write_text("\n".join([head, "", *table(short)]) + "\n")
    lines = [head, "", *table(rows)]
    told = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    lines += ["", f"{document['machine']}. {told}.", "", f"    {document['command']}"]
    write_out(given.out, document, "\n".join(lines) + "\n")


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each row, its figures in passes of the artificial network."""
    names = list(dict.fromkeys(name for row in rows for name in row["seconds"] if name != "artificial network"))
    lines = [
        "| numerics | schedule | T | one pass | " + " | ".join(names) + " |",
        "| --- | --- | --- | --- |" + " --- |" * len(names),
    ]
    for row in rows:
        one = row["seconds"]["artificial network"]
        cells = [f"{row['seconds'][name] / one:.1f}" if name in row["seconds"] else "" for name in names]
        first = f"| {row['numerics']} | {row['schedule']} | {row['steps']} | {1000 * one:.1f} ms | "
        lines.append(first + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--numerics", nargs="+", default=["float32", "int8"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    measure(given)
    print(given.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
