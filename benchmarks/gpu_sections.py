"""The sections of benchmarks/gpu.py, each run in a process of its own: `gpu_sections.py NAME SETTINGS RESULTS SECONDS`.

A section appends a row of JSON to RESULTS as soon as it has a figure, and begins nothing once its time is over.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu import Settings
from stacked_cos import PUBLISHED, Stacked

from calibration import COS, Static, calibrate
from calibration.tuning.parameters import Tuned
from cos_export.accuracy import measure_accuracy
from cos_export.capturing import capture
from cos_export.datasets import Dataset, in_memory, load_dataset
from cos_export.device import full_precision
from cos_export.network import SpikingNetwork
from cos_export.network.schedule import SCHEDULES
from cos_export.nir_file import write_nir
from cos_export.simulation import simulate
from cos_export.zoo.model_source import load_model

Row = dict[str, Any]
STEPS, RHO, RUNS = 8, 4, 3
TUNED: tuple[Tuned, ...] = ("potential", "threshold", "weight")
BATCH = 512
"""Images in an update of a training."""


class Clock:
    """The time that a section has left."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()


def tests(settings: Settings, clock: Clock) -> Iterator[Row]:
    """The tests marked `cuda`: every target, method and training on this device against the CPU."""
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-q", "-rfEs", "--no-header", "tests/test_cuda.py"]
    environment = os.environ | {"COS_EXPORT_TEST_DEVICE": settings.device}
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=max(clock.left(), 1),
            check=False,
        )
    except subprocess.TimeoutExpired as ended:
        shown = (ended.stdout or b"").decode(errors="replace").split()
        yield {"exit code": "stopped at the end of its time", "summary": " ".join(shown)[-300:]}
        return
    lines = done.stdout.strip().splitlines()
    for line in lines:
        if line.startswith(("FAILED", "ERROR", "SKIPPED")):
            yield {"test": line[:300]}
    yield {"exit code": done.returncode, "summary": lines[-1] if lines else done.stderr[-300:]}


def speed(settings: Settings, clock: Clock) -> Iterator[Row]:
    """Per-sample COS beside the published way, and both schedules: images per second and peak memory."""
    for name in settings.networks:
        network, test = prepared(name, settings)
        for batch in settings.batches:
            images = np.resize(in_memory(test.images), (batch, *test.images.shape[1:]))
            for label, run in contenders(network, images, settings.device):
                if clock.left() <= 0:
                    return
                yield {"network": name, "batch": batch, "what": label, **timed(run, batch, settings.device)}


def contenders(network: SpikingNetwork, images: np.ndarray, device: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is timed, by its name."""
    options: dict[str, Any] = {"device": device, "batch_size": len(images), "record_spikes": False}
    where = torch.device(device)
    yield f"cos, rho = {RHO}", lambda: simulate(network, images, STEPS, calibration=COS(RHO), **options)
    published = Stacked(network, images, STEPS, RHO, where, PUBLISHED)
    yield f"cos, rho = {RHO}, {PUBLISHED}", lambda: published(False)
    for schedule in SCHEDULES:
        one = replace(network, schedule=schedule)
        yield schedule, lambda one=one: simulate(one, images, STEPS, **options)  # type: ignore[misc]


def timed(run: Callable[[], object], batch: int, device: str) -> Row:
    """Images per second, the median of several runs after one that does not count; and the peak of memory."""
    on_cuda = device.startswith("cuda")
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    try:
        with full_precision():
            for number in range(RUNS + 1):
                begun = time.perf_counter()
                run()
                if on_cuda:
                    torch.cuda.synchronize(device)
                if number:
                    seconds.append(time.perf_counter() - begun)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {"images/s": "does not fit into the memory", "peak, MiB": ""}
    peak = (
        torch.cuda.max_memory_allocated(device)
        if on_cuda
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    return {"images/s": batch / statistics.median(seconds), "peak, MiB": round(peak / 2**20)}


def calibration(settings: Settings, clock: Clock) -> Iterator[Row]:
    """`static` with as many updates as there is time for, the layer-wise schedule first."""
    cases = [
        (name, schedule, t) for schedule in reversed(SCHEDULES) for name in settings.networks for t in settings.steps
    ]
    for number, (name, schedule, t) in enumerate(cases):
        share = clock.left() / (len(cases) - number)
        if share < 1:
            return
        network, test = prepared(name, settings)
        network = replace(network, schedule=schedule)
        images = load_dataset(settings.data, "train").images
        augmented = len(network.input_shape) == 3 and settings.data != "digits"
        method = Static(TUNED, 8, 64, rounds=1, flip=augmented, shift=4 * augmented, both_sides=augmented)
        each, plain = (
            update_seconds(network, images[:2000], way(method), t, settings) for way in (as_it_is, one_by_one)
        )
        updates = max(8, min(20_000, int(0.6 * share / each)))
        calibrated = calibrate(network, images, replace(method, updates=updates, rounds=10), t, device=settings.device)
        write_nir(calibrated, Path(settings.keep) / f"{name}-static-{schedule}-{t}.nir")
        shares = [measure_accuracy(one, test, [t], device=settings.device).accuracy[t] for one in (network, calibrated)]
        yield {
            "network": name,
            "schedule": schedule,
            "T": t,
            "updates": updates,
            "updates/s": 1 / each,
            "launched one by one, updates/s": 1 / plain,
            "half (%)": 100 * shares[0],
            "static (%)": 100 * shares[1],
        }


@dataclass(frozen=True)
class OneByOne(Static):
    """`static` that never records an update to replay it."""

    def _recorder(self, device: torch.device) -> None:
        return None


def as_it_is(method: Static) -> Static:
    """On a GPU it replays its updates."""
    return method


def one_by_one(method: Static) -> Static:
    """The same calibration, each kernel launched by the host."""
    return OneByOne(**{entry.name: getattr(method, entry.name) for entry in fields(method)})


def update_seconds(
    network: SpikingNetwork, images: np.ndarray, method: Static, steps: int, settings: Settings
) -> float:
    """The mean time of an update once all is set up, of so many that the device was waited for at both ends alone."""
    on_cuda = settings.device.startswith("cuda")
    first, last = (10, 60) if on_cuda else (3, 8)
    moments: list[float] = []

    def watch(stage: str, done: int, total: int) -> None:
        if stage == "tuning" and done in (first, last):
            if on_cuda:
                torch.cuda.synchronize(settings.device)
            moments.append(time.monotonic())

    calibrate(network, images, replace(method, updates=last), steps, device=settings.device, progress=watch)
    return (moments[1] - moments[0]) / (last - first)


def training(settings: Settings, clock: Clock) -> Iterator[Row]:
    """QCFS networks from scratch, in as many epochs as there is time for; the state of one that is ended stays."""
    for number, name in enumerate(settings.networks):
        share = clock.left() / (len(settings.networks) - number)
        if share < 2:
            return
        begun = time.monotonic()
        trained(name, 1, settings, Path(settings.keep) / f"{name}-once.safetensors", share)
        epoch = time.monotonic() - begun
        epochs = max(1, min(200, int((share - epoch) / epoch)))
        out = Path(settings.keep) / f"{name}-{epochs}.safetensors"
        document = trained(name, epochs, settings, out, clock.left())
        yield {
            "network": name,
            "epochs": epochs,
            "seconds/epoch": epoch,
            "test accuracy (%)": 100 * document["test_accuracy"],
        }


def trained(name: str, epochs: int, settings: Settings, out: Path, seconds: float) -> dict[str, Any]:
    """Runs `cos-export train`."""
    chosen = ["--epochs", str(epochs), "--batch-size", str(BATCH), "--precision", "mixed", "--device", settings.device]
    data = ["--data", settings.data, "--test-data", settings.test_data] if settings.data != "digits" else []
    command = [sys.executable, "-m", "cos_export", "train", name, *data, *chosen, "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1), check=False)
    if done.returncode:
        raise SystemExit(f"train {name} ended with {done.returncode}: {done.stderr[-500:]}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def onnxruntime(settings: Settings, clock: Clock) -> Iterator[Row]:
    """model.onnx with the CUDA provider, parity included."""
    from cos_export.exporting import export
    from targets.onnxruntime import OnnxRuntimeTarget
    from targets.verification import verify

    if importlib.util.find_spec("onnxruntime") is None:
        raise SystemExit("onnxruntime is not installed.")
    provider = "CUDAExecutionProvider" if settings.device.startswith("cuda") else "CPUExecutionProvider"
    for name in settings.networks:
        if clock.left() <= 0:
            return
        network, test = prepared(name, settings)
        target = OnnxRuntimeTarget([provider])
        state = target.available()
        if not state.ready:
            yield {"network": name, "provider": provider, "why not": state.reason}
            continue
        bundle = export(network, Path(settings.keep) / f"{name}-bundle", steps=4, golden=test.images[:64])
        result = verify(bundle, targets=[target])
        parity = result["onnxruntime"]
        yield {
            "network": name,
            "provider": provider,
            "passed": result.passed,
            "differ": parity.mismatches,
            "violations": parity.local_violations,
        }


def prepared(name: str, settings: Settings) -> tuple[SpikingNetwork, Dataset]:
    """A network of the zoo with its weights, or random ones, and the images to measure on."""
    test = load_dataset(settings.test_data, "test")
    test = test.first(min(settings.test_samples, len(test)))
    return capture(load_model(name, None).module, test.images[:1]), test


def main() -> None:
    """Runs the section that is named and appends its rows to the file."""
    name, settings, results, seconds = sys.argv[1:]
    sections = {one.__name__: one for one in (tests, speed, calibration, training, onnxruntime)}
    with Path(results).open("a") as rows:
        for row in sections[name](Settings(**json.loads(settings)), Clock(float(seconds))):
            rows.write(json.dumps(row) + "\n")
            rows.flush()


if __name__ == "__main__":
    main()
