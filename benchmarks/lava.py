"""How fast the Lava simulator runs, batched and faithful, beside the PyTorch reference, under both schedules.

    python benchmarks/lava.py --data data/cifar10_test.npz --out docs/measured/lava

A network whose weights are not shipped has random ones, and batch norm takes the statistics of the images, so that
its layers fire as trained ones do. Each round runs PyTorch and the batched back end one after the other; what is
reported is the median of the rounds. A first round, which is not timed, measures memory and compares every spike. The
faithful back end and netx take minutes for a sample of a large network, so they run once, on the first samples.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from out_files import write_out
from provenance import command, machine, versions
from torch import nn

from cos_export.capturing import capture
from cos_export.datasets import load_dataset
from cos_export.errors import InputError
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.network.schedule import SCHEDULES
from cos_export.quantisation import quantise
from cos_export.simulation import simulate
from cos_export.simulation.trace import Trace
from cos_export.zoo import build, load_weights, weights_path
from targets.lava import LavaTarget, find, run_network
from targets.workers.process_group import members

SAMPLES = {"digits": 256, "vgg9": 64, "resnet20": 256, "vgg16": 64}
"""For PyTorch and the batched back end."""

FEW = {"digits": 4, "vgg9": 1, "resnet20": 1}
"""For the faithful back end. One of VGG-16 would take ten minutes."""

CHAINS = ("vgg9",)
"""For netx, in int8, as many as for the faithful back end."""

STATISTICS = 64
"""Images that batch norm takes its statistics from, and quantisation its scales."""


@dataclass(frozen=True)
class Row:
    """What was measured of one network in one numerics, under one schedule.

    Attributes:
        network: Of the zoo.
        schedule: "synchronous" or "layerwise".
        numerics: "float32" or "int8".
        trained: Whether its weights are.
        samples: Run by PyTorch and the batched back end.
        fired: The share of spike slots that hold a spike.
        pytorch: Samples per second, median.
        batched: Likewise.
        batched_megabytes: Of all processes of the worker together, at most.
        slots: Spikes compared of PyTorch and the batched back end.
        mismatches: Of those, how many differ.
        few: Samples of the faithful back end, and of netx.
        faithful: Samples per second, once.
        faithful_megabytes: As above.
        few_slots: Spikes compared of the faithful and the batched back end.
        few_mismatches: Of those, how many differ.
        netx: Samples per second, once.
        netx_mismatches: Spikes in which netx and the batched back end differ.
        load: Of the machine, over the last minute, when the rounds began.
    """

    network: str
    schedule: str
    numerics: str
    trained: bool
    samples: int
    fired: float
    pytorch: float
    batched: float
    batched_megabytes: int
    slots: int
    mismatches: int
    few: int
    faithful: float | None
    faithful_megabytes: int | None
    few_slots: int
    few_mismatches: int | None
    netx: float | None
    netx_mismatches: int | None
    load: float


class PeakMemory(threading.Thread):
    """The most memory that the process groups of this process's children have held together.

    Shared pages count once: what is added is each process's proportional set size, which Linux tells.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.megabytes = 0
        self._done = threading.Event()

    def run(self) -> None:
        """Looks every now and then."""
        while not self._done.wait(0.2):
            self.megabytes = max(self.megabytes, sum(map(_proportional, _descendants())) // 1024)

    def stop(self) -> int:
        """Looks no more, and returns the most."""
        self._done.set()
        self.join()
        return self.megabytes


def _descendants() -> list[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    children = {int(number) for task in tasks for number in task.read_text().split()}
    return [number for child in children for number in members(child)]


def _proportional(process: int) -> int:
    """Kilobytes."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def networks(name: str, data: str, steps: int) -> tuple[list[SpikingNetwork], FloatArray, bool]:
    """The network under both schedules and in both numerics, images, and whether its weights are trained ones."""
    images = load_dataset("digits" if name == "digits" else data, "test").images
    module, trained = build(name), True
    try:
        load_weights(module, weights_path(name))
    except InputError:
        trained = False
        _estimate_statistics(module, images[:STATISTICS])
    captured, made = capture(module, images[:2]), []
    for schedule in SCHEDULES:
        network = replace(captured, schedule=schedule)
        made += [network, quantise(network, images[:STATISTICS], steps=steps)]
    return made, images[: SAMPLES[name]], trained


def _estimate_statistics(module: nn.Module, images: FloatArray) -> None:
    """Gives batch norm the statistics of the images."""
    module.train()
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.eval()
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = None
    with torch.no_grad():
        module(torch.from_numpy(images))
    module.eval()


def measure(name: str, network: SpikingNetwork, images: FloatArray, steps: int, rounds: int, trained: bool) -> Row:
    """One row."""
    load, few = os.getloadavg()[0], FEW.get(name, 0)
    expected = simulate(network, images, steps, device="cpu")
    actual, megabytes, _ = _watched(network, images, steps, "batched")
    pytorch, batched = [], []
    for _ in range(rounds):
        pytorch.append(_seconds(lambda: simulate(network, images, steps, device="cpu")))
        batched.append(_seconds(lambda: run_network(network, images, steps)))
    slots = sum(array.size for array in expected.spikes.values())
    faithful = peak = differing = netx = netx_differing = None
    if few:
        single, peak, seconds = _watched(network, images[:few], steps, "faithful")
        faithful, differing = few / seconds, _differing(single, actual, few)
    if name in CHAINS and network.quantisation is not None:
        single, _, seconds = _watched(network, images[:few], steps, "netx")
        netx, netx_differing = few / seconds, _differing(single, actual, few)
    return Row(
        network=name,
        schedule=network.schedule,
        numerics=network.numerics,
        trained=trained,
        samples=len(images),
        fired=sum(int(array.sum()) for array in expected.spikes.values()) / slots,
        pytorch=len(images) / statistics.median(pytorch),
        batched=len(images) / statistics.median(batched),
        batched_megabytes=megabytes,
        slots=slots,
        mismatches=_differing(expected, actual, len(images)),
        few=few,
        faithful=faithful,
        faithful_megabytes=peak,
        few_slots=slots // len(images) * few,
        few_mismatches=differing,
        netx=netx,
        netx_mismatches=netx_differing,
        load=load,
    )


def _watched(network: SpikingNetwork, images: FloatArray, steps: int, backend: Any) -> tuple[Trace, int, float]:
    watch = PeakMemory()
    watch.start()
    began = time.perf_counter()
    trace = run_network(network, images, steps, options=LavaTarget(backend))
    seconds = time.perf_counter() - began
    return trace, watch.stop(), seconds


def _seconds(act: Any) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _differing(one: Trace, other: Trace, samples: int) -> int:
    return sum(
        int(np.count_nonzero(array[:, :samples] != other.spikes[name][:, :samples]))
        for name, array in one.spikes.items()
    )


def markdown(document: dict[str, Any]) -> str:
    """Two tables and what they were measured on."""
    lines = [
        f"Samples per second at T = {document['steps']}: of PyTorch and the batched back end the medians of "
        f"{document['rounds']} rounds in which they take turns; of the faithful back end and netx one run, its "
        "samples in brackets. Every run of Lava includes its start. Memory is that of all processes of the worker, "
        "pages that they share counted once. The load is the machine's over the minute before, in which a faithful "
        "run, of a process for each group of neurons and each synapse, makes much of it.",
        "",
        "| network | schedule | numerics | samples | PyTorch | batched | of PyTorch | memory | faithful | memory "
        "| netx | load |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in document["rows"]:
        slow, held = "not run", ""
        if row["faithful"]:
            slow, held = f"{row['faithful']:.2g} ({row['few']})", f"{row['faithful_megabytes']} MB"
        chain = f"{row['netx']:.2g} ({row['few']})" if row["netx"] else ""
        lines.append(
            f"| {row['network']} | {row['schedule']} | {row['numerics']} | {row['samples']} | {row['pytorch']:.1f} "
            f"| {row['batched']:.1f} | {row['batched'] / row['pytorch']:.2f} | {row['batched_megabytes']} MB | {slow} "
            f"| {held} | {chain} | {row['load']:.1f} |"
        )
    lines += [
        "",
        "Spikes compared, and how many differ:",
        "",
        "| network | weights | schedule | numerics | slots that fire | batched and PyTorch | differ "
        "| faithful and batched | differ | netx and batched differ |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in document["rows"]:
        few = f"{row['few_slots']:,} | {row['few_mismatches']:,}" if row["faithful"] else "not run | "
        chain = "" if row["netx_mismatches"] is None else f"{row['netx_mismatches']:,}"
        lines.append(
            f"| {row['network']} | {'trained' if row['trained'] else 'random'} | {row['schedule']} | {row['numerics']} "
            f"| {100 * row['fired']:.1f} % | {row['slots']:,} | {row['mismatches']:,} | {few} | {chain} |"
        )
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return "\n".join([*lines, "", f"{document['machine']}. {versions}.", "", f"    {document['command']}", ""])


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the .npz of CIFAR-10 images")
    parser.add_argument("--networks", default=",".join(SAMPLES))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="written with .json and .md")
    given = parser.parse_args()
    environment = find()
    rows = []
    for name in given.networks.split(","):
        made, images, trained = networks(name, given.data, given.steps)
        for network in made:
            rows.append(measure(name, network, images, given.steps, given.rounds, trained))
            print(rows[-1], file=sys.stderr, flush=True)
    document = {
        "steps": given.steps,
        "rounds": given.rounds,
        "rows": [asdict(row) for row in rows],
        "versions": versions()
        | {"lava-nc": environment.versions["lava-nc"], "Lava's Python": environment.python_version},
        "machine": machine(),
        "command": command(),
    }
    write_out(given.out, document, markdown(document))
    print(given.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
