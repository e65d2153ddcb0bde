"""Speed and memory of per-sample COS, against the same formulas on stacked steps.

    OMP_NUM_THREADS=1 python benchmarks/calibration_speed.py --out docs/measured/calibration_speed

    as published         the baseline; this one and the next two are described in benchmarks/stacked_cos.py
    stacked, min and max
    step by step
    synapses alone       no implementation: the synapses as cos-export runs them, whose time no COS can do without

All multiply where a residual's identity path is a convolution by a multiple of the identity. Each has a process of its
own, and they take turns, so that a busy machine slows all alike: the ratios count, not the milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from out_files import write_out
from peak_memory import memory_now
from provenance import processor, versions
from stacked_cos import PUBLISHED, STACKED, STEP_BY_STEP, Answer, Stacked
from torch import Tensor

from calibration import COS
from cos_export import zoo
from cos_export.capturing import capture
from cos_export.datasets import in_memory, load_dataset
from cos_export.device import full_precision, resolve_device
from cos_export.network import SpikingNetwork
from cos_export.simulation import simulate
from cos_export.simulation.neuron import NeuronTensors
from cos_export.simulation.program import Program

OURS, SYNAPSES = "cos-export", "synapses alone"

Implementation = Callable[[bool], Answer]
"""Runs the batch; told whether to keep the spikes."""


def ours(network: SpikingNetwork, images: np.ndarray, steps: int, rho: int, device: torch.device) -> Implementation:
    """The reference of cos-export as its users call it."""

    def run(keep: bool) -> Answer:
        options: dict[str, Any] = {"batch_size": len(images), "device": device, "record_spikes": keep}
        trace = simulate(network, images, steps, calibration=COS(rho), **options)
        return Answer(trace.logits, dict(trace.states.v_init) if trace.states else {}, dict(trace.spikes))

    return run


def synapses_alone(
    network: SpikingNetwork, images: np.ndarray, steps: int, rho: int, device: torch.device
) -> Implementation:
    """The synapses on the spikes of an earlier run, in the same parts of the batch."""
    program, batch = Program(network, device), torch.from_numpy(images).to(device)
    trains: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        COS(rho).run(program, batch, max(steps, rho), lambda name, run: trains.setdefault(name, []).append(run.spikes))
    parts = torch.split(batch, [train.shape[1] for train in trains[network.layers[0]]])

    @torch.no_grad()
    def run(keep: bool) -> Answer:
        for number, part in enumerate(parts):
            program.propagate(part, partial(_replayed, number))
        return Answer(np.empty(0), {}, {})

    def _replayed(number: int, name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        return trains[name][number]

    return run


def implementation(name: str, given: argparse.Namespace, network: SpikingNetwork, images: np.ndarray) -> Implementation:
    """The implementation called `name`, ready to run a batch."""
    sizes, device = (given.steps, given.rho), resolve_device(given.device)
    if name == OURS:
        return ours(network, images, *sizes, device)
    if name == SYNAPSES:
        return synapses_alone(network, images, *sizes, device)
    return Stacked(network, images, *sizes, device, name)


def prepared(given: argparse.Namespace) -> tuple[SpikingNetwork, np.ndarray]:
    """A network whose batch norm has seen images, so that currents and thresholds are in proportion; and a batch."""
    module = zoo.build(given.model)
    if given.data is None:
        shape = (4 * 64, *zoo.entry(given.model).input_shape)
        images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    else:
        images = in_memory(load_dataset(given.data, "train").first(4 * 64).images)
    if given.weights is not None:
        zoo.load_weights(module, given.weights)
    else:
        module.train()
        with torch.no_grad():
            for start in range(0, len(images), 64):
                module(torch.from_numpy(images[start : start + 64]))
    return capture(module.eval(), images[:2]), images[: given.batch]


def work(given: argparse.Namespace) -> None:
    """The process of one implementation: a run for each line that it reads, then its answer into a file."""
    network, images = prepared(given)
    run = implementation(given.worker, given, network, images)
    with full_precision():
        implementation(given.worker, given, network, images[:1])(False)
        before = memory_now(given.device, reset=True)
        run(False)
        say({"peak": memory_now(given.device) - before})
        for line in sys.stdin:
            if line.strip() != "run":
                break
            begun, used = time.perf_counter(), time.process_time()
            run(False)
            say({"seconds": time.perf_counter() - begun, "processor": time.process_time() - used})
        answer = run(True)
    arrays: dict[str, Any] = {f"spikes/{name}": np.packbits(array) for name, array in answer.spikes.items()}
    arrays |= {f"v_init/{name}": array for name, array in answer.v_init.items()}
    np.savez(given.answer, logits=answer.logits, **arrays)


def say(document: dict[str, float]) -> None:
    """One line to the process that asked."""
    print(json.dumps(document), flush=True)


def differing(first: Path, second: Path) -> dict[str, int]:
    """How many spikes, potentials and logits differ between two answers."""
    counts = {"spikes": 0, "v_init": 0, "logits": 0}
    with np.load(first, allow_pickle=False) as one, np.load(second, allow_pickle=False) as other:
        if set(one.files) != set(other.files):
            raise SystemExit(f"{first.name} and {second.name} hold other layers.")
        for name in one.files:
            kind = name.split("/")[0]
            wrong = np.bitwise_count(one[name] ^ other[name]) if kind == "spikes" else one[name] != other[name]
            counts[kind] += int(wrong.sum())
    return counts


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Lets the implementations take turns."""
    names, processes = (PUBLISHED, STACKED, STEP_BY_STEP, OURS, SYNAPSES), {}
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        answers = {name: Path(folder) / f"{number}.npz" for number, name in enumerate(names)}
        for name in names:
            # One after the other, for the peak of one is not to be measured while another loads.
            command = [sys.executable, __file__, *sys.argv[1:], "--worker", name, "--answer", str(answers[name])]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            processes[name] = process
            rows[name] = {"peak": read_line(process)["peak"], "seconds": [], "processor": []}
        for _ in range(given.runs):
            for name, process in processes.items():
                print("run", file=process.stdin, flush=True)
                for key, value in read_line(process).items():
                    rows[name][key].append(value)
        for process in processes.values():
            print("end", file=process.stdin, flush=True)
            process.communicate()
        for name in (PUBLISHED, STACKED, STEP_BY_STEP):
            rows[name]["differs"] = differing(answers[OURS], answers[name])
        slots = count_slots(answers[OURS])
    return {
        "model": given.model,
        "weights": str(given.weights) if given.weights else "random, batch norm fitted to the images",
        "data": given.data or "normal noise",
        "batch": given.batch,
        "rho": given.rho,
        "steps": given.steps,
        "runs": given.runs,
        "spike_slots": slots,
        "implementations": rows,
        "machine": machine(given.device),
        "versions": versions(),
        "command": f"OMP_NUM_THREADS={torch.get_num_threads()} "
        + shlex.join(["python", "benchmarks/calibration_speed.py", *sys.argv[1:]]),
    }


def read_line(process: subprocess.Popen[str]) -> dict[str, float]:
    """The next line of a process."""
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise SystemExit(f"A process ended early, with exit code {process.wait()}.")
    return dict(json.loads(line))


def count_slots(answer: Path) -> int:
    """Spikes that could have been fired."""
    with np.load(answer, allow_pickle=False) as arrays:
        return sum(8 * arrays[name].size for name in arrays.files if name.startswith("spikes/"))


def machine(device: str) -> dict[str, Any]:
    """What it was measured on, and how busy that was."""
    chosen = resolve_device(device)
    return {
        "device": torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else "cpu",
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
    }


def markdown(measured: dict[str, Any]) -> str:
    """The table and what it was measured on."""
    rows, here = measured["implementations"], measured["machine"]
    middle = {name: statistics.median(row["seconds"]) for name, row in rows.items()}
    busy = {name: statistics.median(row["processor"]) for name, row in rows.items()}
    lines = [
        "# Speed and memory of per-sample COS",
        "",
        f"Per-sample COS on {measured['model']} ({measured['weights']}), {measured['data']}, "
        f"batch {measured['batch']}, rho = {measured['rho']}, T = {measured['steps']}: "
        f"medians of {measured['runs']} runs that took turns.",
        "",
        "| implementation | ms | times ours | processor ms | times ours | peak MB | times ours |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        columns = [f"{1000 * middle[name]:.0f}", f"{middle[name] / middle[OURS]:.2f}"]
        columns += [f"{1000 * busy[name]:.0f}", f"{busy[name] / busy[OURS]:.2f}"]
        if name != SYNAPSES:
            columns += [f"{row['peak'] / 1e6:.0f}", f"{row['peak'] / rows[OURS]['peak']:.2f}"]
        else:
            columns += ["", ""]
        lines.append(f"| {name} | {' | '.join(columns)} |")
    above = {name: busy[name] - busy[SYNAPSES] for name in (PUBLISHED, STACKED, STEP_BY_STEP, OURS)}
    parts = [f"{name} {1000 * time:.0f} ms ({time / above[OURS]:.1f} times ours)" for name, time in above.items()]
    floors = ", ".join(f"{busy[name] / busy[SYNAPSES]:.1f} ({name})" for name in (PUBLISHED, STACKED, STEP_BY_STEP))
    lines += ["", f"* Processor time above that of the synapses alone: {', '.join(parts)}."]
    for name, row in rows.items():
        if "differs" in row:
            wrong = row["differs"]
            lines.append(
                f"* {name}: {wrong['spikes']:,} of {measured['spike_slots']:,} spikes, {wrong['v_init']:,} potentials "
                f"and {wrong['logits']:,} logits differ from ours."
            )
    lines += [
        "* `as published` is the baseline: COS as the published code has it, written down plainly. A synapse computes "
        "all steps as one batch; potentials and spikes of every pre-simulation step are joined by torch.stack, and "
        "top-1 is taken of the stack. (The published code also divides each current by the threshold and multiplies "
        "each spike by it; this does not.)",
        "* `stacked, min and max`: the same with minimum and maximum over the stack, to show the price of top-1. `step "
        "by step`: each step goes through synapse and neuron on its own, in the pre-simulation and again in the run, "
        "as simulators of spiking networks mostly do. `synapses alone`: what no implementation can do without. If "
        f"everything else took no time, the ratios would be {floors}.",
        "* Peak: the highest memory of a run above what the process held before it, the potentials that all "
        "return included.",
        f"* {here['device']}, {here['processor']} ({here['instructions']}), {here['cores']} cores, threads: "
        f"{here['threads']}, load average {here['load']} (with other work on the machine, the ratios count and not the "
        "milliseconds); " + ", ".join(f"{name} {version}" for name, version in measured["versions"].items()) + ".",
        f"* `{measured['command']}`",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20", help="a zoo network")
    parser.add_argument("--weights", type=Path, help="by default random ones, batch norm fitted to the images")
    parser.add_argument("--data", help="by default normal noise")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--rho", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="written with .json and .md")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        work(given)
        return
    measured = measure(given)
    write_out(given.out, measured, markdown(measured))
    print(given.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
