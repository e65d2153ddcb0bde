"""The clients themselves, each in one process for all networks: the same spikes, every one, or a refusal by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lowered_networks
import numpy as np
import pytest
import random_networks as build
from eight_bit_networks import pictures
from integer_networks import in_fixed_point, integer_images

from cos_export.clients import CLIENTS
from cos_export.exporting import export
from cos_export.lowering import lowered
from cos_export.network import SpikingNetwork
from cos_export.nir_file import write_nir
from cos_export.parity import verify
from cos_export.simulation import simulate
from targets.clients import ClientTarget
from targets.workers.environment import WorkerEnvironment

STEPS = 5


def _residual(seed: int, *, uniform: bool = True, **options: Any) -> SpikingNetwork:
    network = build.residual(np.random.default_rng(seed), **options)
    if not uniform:
        return network

    def same(values: Any) -> Any:
        return None if values is None else np.full_like(values, values.flat[0])

    layers = network.neurons.items()
    return replace(
        network,
        neurons={
            name: replace(spec, threshold=same(spec.threshold), v_reset=same(spec.v_reset)) for name, spec in layers
        },
    )


def _layerwise(network: SpikingNetwork) -> SpikingNetwork:
    return replace(network, schedule="layerwise")


NETWORKS: dict[str, Callable[[], SpikingNetwork]] = {
    "float32": lambda: _residual(0),
    "layerwise": lambda: _layerwise(_residual(1)),
    "bias and mask": lambda: _residual(2, bias_steps=1, silenced=True),
    "bias and mask, layerwise": lambda: _layerwise(_residual(2, bias_steps=1, silenced=True)),
    "int8": lambda: in_fixed_point(_residual(0), 0),
    "int8, layerwise": lambda: _layerwise(in_fixed_point(_residual(0), 0)),
    "int8, strict": lambda: in_fixed_point(_residual(4, condition=">"), 4),
    "thresholds": lambda: _residual(1, uniform=False),
    "strict": lambda: _residual(5, condition=">"),
    "to a value": lambda: _residual(5, reset="value"),
    "strict, to a value": lambda: _residual(5, reset="value", condition=">"),
}

REFUSED = {
    ("spikingjelly", "thresholds"): "SpikingJelly has one threshold for all neurons of a layer, and layer 'if1'",
    ("sinabs", "strict"): "sinabs fires at the threshold, and layer 'if1' strictly above it",
    ("snntorch", "strict"): "layer 'if1' fires above it",
    ("norse", "strict"): "layer 'if1' does: it is reset by subtraction and fires above it",
    ("spikingjelly", "strict"): "SpikingJelly fires at the threshold, and layer 'if1' strictly above it",
    ("sinabs", "to a value"): "layer 'if1' is reset to a value",
    ("snntorch", "to a value"): "layer 'if1' is reset to a value",
    ("norse", "to a value"): "layer 'if1' does: it is reset to a value and fires at its threshold",
    ("sinabs", "strict, to a value"): "layer 'if1' strictly above it",
    ("snntorch", "strict, to a value"): "layer 'if1' is reset to a value",
    ("spikingjelly", "strict, to a value"): "layer 'if1' strictly above it",
}

_PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from cos_export.clients import CLIENTS, load
from cos_export.errors import NetworkError
from shared_work import one_reading_process

def outcome(place, client):
    recorded, differ = np.load(place), 0
    try:
        network = load(place.with_suffix(".nir"), client)
    except NetworkError as error:
        return str(error)
    for half in (slice(0, 4), slice(4, 6)):  # batches of different sizes, each from its own start
        with torch.no_grad():
            logits = network(torch.from_numpy(recorded["images"][half])).numpy()
        differ += int((logits != recorded["logits"][:, half]).sum())
        for name, spikes in network.spikes.items():
            differ += int((spikes.numpy() != recorded[name][:, half]).sum())
    return differ

with one_reading_process():
    places = sorted(Path(sys.argv[1]).glob("*.npz"))
    print(json.dumps({f"{client}/{place.stem}": outcome(place, client) for client in CLIENTS for place in places}))
"""


@pytest.fixture(scope="module")
def outcomes(clients_environment: WorkerEnvironment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By client and network, how many spikes and logits differ, or why it was refused."""
    folder = tmp_path_factory.mktemp("networks")
    for name, make in NETWORKS.items():
        network = replace(make(), num_timesteps=STEPS)
        images = build.images(network, 6) if network.quantisation is None else integer_images(network, 6)
        trace = simulate(network, images, STEPS)
        assert all(spikes.any() and not spikes.all() for spikes in trace.spikes.values())
        write_nir(network, folder / f"{name}.nir")
        np.savez(folder / f"{name}.npz", images=images, logits=trace.logits, **trace.spikes)  # type: ignore[arg-type]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [clients_environment.python, "-B", "-c", _PROGRAM, folder],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (root, root / "tests" / "helpers")))},
        check=True,
        capture_output=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("client", CLIENTS)
def test_the_same_spikes_or_a_refusal(outcomes: dict[str, Any], client: str, name: str) -> None:
    expected = REFUSED.get((client, name))
    if expected is None:
        assert outcomes[f"{client}/{name}"] == 0
    else:
        assert expected in str(outcomes[f"{client}/{name}"])


_NENGO = """
import json, sys
from pathlib import Path
import numpy as np
import nengo_model
from cos_export.clients.nir_graph import read_graph
outcomes = {}
for place in sorted(Path(sys.argv[1]).glob("*.npz")):
    recorded, graph = np.load(place), read_graph(place.with_suffix(".nir"))
    steps = len(recorded["logits"])
    for sample, image in enumerate(recorded["images"]):
        spikes, outputs = nengo_model.run(graph, image, steps)
        expected = {name: recorded[name][:, sample].reshape(steps, -1) for name in spikes}
        differ = sum(int((expected[name] != fired).sum()) for name, fired in spikes.items())
        logits = outputs.mean(0) * (1.0 if graph.readout_scale is None else graph.readout_scale)
        close = bool(np.allclose(logits, recorded["logits"][-1, sample], rtol=1e-5))
        outcomes.setdefault(place.stem, []).append([differ, close])
print(json.dumps(outcomes))
"""


def test_the_example_for_nengo_fires_every_spike(clients_environment: WorkerEnvironment, tmp_path: Path) -> None:
    if not list(clients_environment.path.glob("lib/python3.*/site-packages/nengo-*.dist-info")):
        pytest.skip("the clients' environment was made without Nengo")
    lowered_integers = lowered(lowered_networks.integers("summing"), 3)
    networks = {name: NETWORKS[name]() for name in ("bias and mask", "int8", "thresholds")} | {"low": lowered_integers}
    for name, network in networks.items():
        images = pictures(network, 2) if name == "low" else integer_images(network, 2)
        write_nir(network, tmp_path / f"{name}.nir")
        trace = simulate(network, images)
        np.savez(tmp_path / f"{name}.npz", images=images, logits=trace.logits, **trace.spikes)  # type: ignore[arg-type]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [clients_environment.python, "-B", "-c", _NENGO, tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "examples")])},
        check=True,
        capture_output=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == {name: [[0, True]] * 2 for name in networks}


_SPYX = """
import json, sys
from pathlib import Path
import numpy as np
import spyx_model
from cos_export.clients.nir_graph import read_graph
from cos_export.errors import NetworkError
found = {}
for place in sorted(Path(sys.argv[1]).glob("*.npz")):
    recorded, graph = np.load(place), read_graph(place.with_suffix(".nir"))
    try:
        spikes, logits = spyx_model.run(graph, recorded["images"], len(recorded["logits"]))
    except NetworkError as error:
        found[place.stem] = str(error)
        continue
    differ = sum(int((recorded[name] != fired).sum()) for name, fired in spikes.items())
    found[place.stem] = [differ, float(np.abs(logits - recorded["logits"]).max()), "torch" in sys.modules]
print(json.dumps(found))
"""


def test_the_example_for_spyx_fires_every_spike(tmp_path: Path) -> None:
    python = os.environ.get("COS_EXPORT_SPYX_PYTHON") or (sys.executable if find_spec("spyx") else None)
    if python is None:
        pytest.skip("Spyx is not installed here, and COS_EXPORT_SPYX_PYTHON does not name a Python that has it")
    run_here = ("float32", "bias and mask", "int8", "int8, strict", "thresholds")
    networks = {name: NETWORKS[name]() for name in (*run_here, "layerwise", "strict", "to a value")}
    networks["low"] = lowered(lowered_networks.integers("summing"), 3)
    for name, network in networks.items():
        images = pictures(network, 3) if name == "low" else build.images(network, 3)
        images = images if network.quantisation is None or name == "low" else integer_images(network, 3)
        steps = network.num_timesteps or STEPS
        write_nir(network, tmp_path / f"{name}.nir")
        trace = simulate(network, images, steps)
        np.savez(tmp_path / f"{name}.npz", images=images, logits=trace.logits, **trace.spikes)  # type: ignore[arg-type]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [python, "-B", "-c", _SPYX, tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "examples")])},
        check=True,
        capture_output=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert "lower it first" in found.pop("layerwise")
    assert "layer 'if1'" in found.pop("strict").lower() and "layer 'if1'" in found.pop("to a value").lower()
    assert {name: differ for name, (differ, _, _) in found.items()} == dict.fromkeys((*run_here, "low"), 0)
    exact = {"int8", "int8, strict", "low"}
    assert all(off == 0 if name in exact else off < 1e-5 for name, (_, off, _) in found.items())
    assert not any(torch for _, _, torch in found.values())


def test_a_bundle_on_a_client(clients_environment: WorkerEnvironment, tmp_path: Path) -> None:
    network = in_fixed_point(_residual(0), 0)
    bundle = export(network, tmp_path / "out", STEPS, golden=integer_images(network, 6))
    result = verify(bundle, [ClientTarget("snntorch")])
    assert result.passed and result["snntorch"].mismatches == 0
    assert result["snntorch"].version.startswith("snnTorch 1.0.0")
