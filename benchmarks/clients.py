"""The digits network in every client and runtime: through this package, and through what each has of its own.

    OMP_NUM_THREADS=1 python benchmarks/clients.py --out docs/measured/clients

All 500 test images run at each T, calibrated for it. Each way is two lines of code (`client_runs/ways.py`), which are
executed as they stand in a process of their own: in this environment, in that of the clients (`cos-export targets
--install sinabs`), or in that of the Python that COS_EXPORT_SPYX_PYTHON names. Spikes are compared with those of the
PyTorch reference. What an importer ignores is found by its spikes: they are compared with those of neurons that depart
from the file's contract in one or several ways (`client_runs/variants.py`). Importers read with the nir of this
environment; that of sinabs too, which pins one that is older.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from client_runs.table import markdown
from client_runs.variants import CONTRACT, Variant, run, variants
from client_runs.ways import WAYS, Line, Way
from numpy.typing import NDArray
from provenance import command, machine, versions

import cos_export as ce
from cos_export import zoo
from cos_export.bundle import Bundle
from cos_export.datasets import in_memory
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.parity.local import check_local
from cos_export.simulation.trace import Trace
from targets.clients import CLIENTS_SOFTWARE
from targets.workers.environment import find

ROOT = Path(__file__).resolve().parents[1]
CHILD = Path(__file__).parent / "client_runs" / "child.py"
FEW = 64
"""Images by which it is found what an importer ignores."""
Arrays = dict[str, NDArray[Any]]


def networks(steps: int) -> dict[str, SpikingNetwork]:
    """The digits network by numerics, calibrated for T."""
    train = ce.load_dataset("digits", "train")
    module = zoo.build("digits")
    zoo.load_weights(module, zoo.weights_path("digits"))
    captured = ce.capture(module, train.images[:1])
    integers = ce.quantise(captured, train.images[:256], steps=steps)
    return {
        name: ce.calibrate(network, train.images, method="mean-matching", steps=steps)
        for name, network in (("float32", captured), ("int8", integers))
    }


def python_of(way: Way) -> str | None:
    """The interpreter that has the client, or None."""
    if way.where == "here":
        return sys.executable
    if way.where == "clients":
        return str(find(CLIENTS_SOFTWARE["sinabs"]).python)
    return os.environ.get("COS_EXPORT_SPYX_PYTHON")


def version_of(way: Way, python: str) -> str:
    """The version of a client's package."""
    if way.name == "c":
        from targets.c.compiler import find as compiler

        return compiler().version
    if way.name == "lava":
        return "0.10.0"
    code = f"from importlib.metadata import version; print(version({way.package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def executed(line: Line, way: Way, python: str, folder: Path, images: FloatArray, steps: int) -> Arrays | str:
    """What the lines leave, or why they fail."""
    for name in ("result.npz", "error.json"):
        (folder / name).unlink(missing_ok=True)
    np.save(folder / "images.npy", images)
    bundle = ce.load(folder / "out" / "digits")
    paths = [str(ROOT), str(ROOT / "examples")]
    if way.where == "clients" and line is way.own:
        paths.append(str(folder / "newest_nir"))
    layers = list(bundle.network.layers)
    job = asdict(line) | {"steps": steps, "paths": paths, "layers": layers, "torch": way.where == "clients"}
    job["outputs"] = layers
    (folder / "job.json").write_text(json.dumps(job))
    command = [python, "-P", str(CHILD), str(folder / "job.json")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if (folder / "error.json").exists():
        return str(json.loads((folder / "error.json").read_text())).replace(str(folder), "")
    if done.returncode:
        return f"exit code {done.returncode}: {done.stderr.strip().splitlines()[-1]}"
    with np.load(folder / "result.npz") as found:
        return {name: found[name] for name in found.files}


def judged(found: Arrays | str, network: SpikingNetwork, images: FloatArray, expected: Trace, labels: Any) -> Any:
    """Accuracy by step, spikes that differ, and whether rounding explains them."""
    if isinstance(found, str):
        return {"error": found}
    logits = found["logits"]
    if logits.shape != expected.logits.shape:
        return {"error": f"returns another node's values, {logits.shape[2:]} of each image"}
    row: dict[str, Any] = {
        "samples": len(images),
        "accuracy": [float(share) for share in (logits.argmax(-1) == labels).mean(1)],
    }
    spikes = {
        name: found[f"spikes/{name}"].reshape(fired.shape)
        for name, fired in expected.spikes.items()
        if f"spikes/{name}" in found
    }
    if spikes:
        row["compared"] = sum(fired.size for fired in spikes.values())
        row["differ"] = {name: int((fired != expected.spikes[name]).sum()) for name, fired in spikes.items()}
        row["logits_off"] = float(np.abs(logits - expected.logits).max())
    return row


def explained(found: Arrays | str, network: SpikingNetwork, images: FloatArray, row: dict[str, Any]) -> dict[str, Any]:
    """The local violations of a run whose spikes differ: what rounding does not explain."""
    if not isinstance(found, str) and sum(row.get("differ", {}).values()):
        spikes = {
            name: found[f"spikes/{name}"].reshape(len(found["logits"]), len(images), *spec.shape)
            for name, spec in network.neurons.items()
        }
        row["violations"] = check_local(network, images, Trace(found["logits"].astype(np.float32), spikes)).violations
    return row


def ignored(found: Arrays | str, nir_file: Path, images: FloatArray, steps: int, layers: tuple[str, ...]) -> Any:
    """What an importer ignores, by the variant that fires what it fires, and from which layer on none does."""
    if isinstance(found, str) or f"spikes/{layers[0]}" not in found:
        return None
    best: tuple[int, Variant] | None = None
    images = images[:FEW]
    for variant in variants():
        _, fired = run(nir_file, images, steps, variant)
        agreeing = 0
        for layer in layers:
            actual = found.get(f"spikes/{layer}")
            if actual is None or not np.array_equal(actual[:, :FEW].reshape(fired[layer].shape), fired[layer]):
                break
            agreeing += 1
        if best is None or agreeing > best[0]:
            best = agreeing, variant
        if agreeing == len(layers):
            break
    if best is None or best[0] == 0:
        return {"ignores": None, "from": layers[0]}
    return {"ignores": best[1].ignores, "from": None if best[0] == len(layers) else layers[best[0]]}


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Everything, by way, numerics and T."""
    test = ce.load_dataset("digits", "test").first(given.samples)
    ways = [way for way in WAYS if way.name in given.ways]
    rows: dict[str, Any] = {way.name: {"through": {}, "own": {}} for way in ways}
    parts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "newest_nir").mkdir()
        spec = importlib.util.find_spec("nir")
        (folder / "newest_nir" / "nir").symlink_to(Path(str(spec and spec.origin)).parent)
        for steps in given.steps:
            for numerics, network in networks(steps).items():
                bundle = ce.export(network, folder / "out" / "digits", steps, golden=test.images[:2])
                expected = ce.simulate(network, test.images, steps, device="cpu")
                for way in ways:
                    lines = {"through": way.through} if numerics in way.numerics else {}
                    lines |= {"own": way.own} if way.own is not None and numerics == "float32" else {}
                    python = python_of(way)
                    for kind, line in lines.items():
                        if python is None:
                            continue
                        some = test.first(given.one_by_one) if line.each_image else test
                        found = executed(line, way, python, folder, in_memory(some.images), steps)
                        reference = expected.part(np.arange(len(some)))
                        row = judged(found, network, in_memory(some.images), reference, some.labels)
                        if kind == "through":
                            row = explained(found, network, in_memory(some.images), row)
                        if not isinstance(found, str) and "precision" in found:
                            row["precision"] = str(found["precision"])
                        if kind == "own" and way.where == "clients":
                            row |= {
                                "neurons": ignored(
                                    found, bundle.nir_path, in_memory(some.images), steps, network.layers
                                )
                            }
                        rows[way.name][kind][f"{numerics}, {steps}"] = row
                        rows[way.name]["version"] = version_of(way, python)
                        print(way.name, kind, numerics, steps, row, file=sys.stderr)
                if numerics == "float32":
                    parts[str(steps)] = costs(bundle, in_memory(test.images), test.labels, steps)
    return {"clients": rows, "parts": parts}


def costs(bundle: Bundle, images: FloatArray, labels: Any, steps: int) -> dict[str, float]:
    """The accuracy at T of a reader that ignores a part of the file."""
    readers = {
        "nothing": CONTRACT,
        "the initial potentials": Variant(v_init=False),
        "reset by subtraction": Variant(to_zero=True),
        "`>=`": Variant(strict=True),
        "all three: NIR to the letter": Variant(v_init=False, to_zero=True, strict=True),
    }
    return {
        name: float((run(bundle.nir_path, images, steps, variant)[0][-1].argmax(-1) == labels).mean())
        for name, variant in readers.items()
    }


def main() -> None:
    """Measures and writes .json and .md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--ways", nargs="+", default=[way.name for way in WAYS], help="Clients and runtimes.")
    parser.add_argument("--one-by-one", type=int, default=20, help="Images of a client that runs one at a time.")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    document = {
        "samples": given.samples,
        "one_by_one": given.one_by_one,
        "steps": given.steps,
        "machine": machine(),
        "versions": versions("nir"),
        "command": command(),
    } | measure(given)
    given.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    given.out.with_suffix(".md").write_text(markdown(document))
    print(given.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
