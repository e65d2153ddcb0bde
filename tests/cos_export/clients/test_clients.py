"""A NIR file on a client's neurons, and the runner that every client shares, on neurons of no client."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import lowered_networks
import nir
import numpy as np
import pytest
import random_networks as build
import torch
from eight_bit_networks import pictures
from integer_networks import in_fixed_point, integer_images
from plain_neurons import PlainNeurons

import cos_export
from calibration import COS, SRP
from cos_export.clients import CLIENTS, load
from cos_export.clients.network import ClientNetwork
from cos_export.clients.neurons.layer import uniform
from cos_export.clients.nir_graph import read_graph
from cos_export.clients.synapses import SYNAPSES
from cos_export.errors import InputError, NetworkError, UnavailableError
from cos_export.lowering import lowered
from cos_export.network import SpikingNetwork
from cos_export.network.node_facts import known_types
from cos_export.nir_file import write_nir
from cos_export.simulation import simulate
from cos_export.simulation.trace import Trace

STEPS = 4


def client_of(network: SpikingNetwork, folder: Path) -> ClientNetwork:
    write_nir(network, folder / "model.nir")
    return ClientNetwork(read_graph(folder / "model.nir"), PlainNeurons)


def check(actual: ClientNetwork, logits: torch.Tensor, expected: Trace) -> None:
    """The same spikes, every one, and the same logits, bit for bit: all sums are exact in any order."""
    assert set(actual.spikes) == set(expected.spikes)
    for name, spikes in expected.spikes.items():
        assert np.array_equal(actual.spikes[name].numpy(), spikes), name
    assert np.array_equal(logits.detach().numpy(), expected.logits)


@pytest.mark.parametrize("seed", range(40))
def test_any_network_fires_its_spikes(tmp_path: Path, seed: int) -> None:
    network = build.random_network(seed)
    client, images = client_of(network, tmp_path), build.images(network, 3, seed)
    check(client, client(torch.from_numpy(images), STEPS + 1), simulate(network, images, STEPS + 1))


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
@pytest.mark.parametrize("seed", range(4))
def test_both_schedules_in_floats_and_integers(tmp_path: Path, seed: int, schedule: Any) -> None:
    network = build.residual(np.random.default_rng(seed), bias_steps=seed % 2, silenced=bool(seed // 2))
    floats = replace(network, schedule=schedule)
    integers = replace(in_fixed_point(network, seed), schedule=schedule)
    for shown, images in ((floats, build.images(floats, 3)), (integers, integer_images(integers, 3))):
        client = client_of(shown, tmp_path)
        check(client, client(torch.from_numpy(images)), simulate(shown, images))


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
def test_an_input_that_changes_from_step_to_step(tmp_path: Path, schedule: Any) -> None:
    """Against the equations, in numpy."""
    rng = np.random.default_rng(4)
    network = build.sequential(rng, (6,), [build.affine(rng, 6, 5), build.IF])
    write_nir(replace(network, schedule=schedule), tmp_path / "model.nir")
    graph = nir.read(tmp_path / "model.nir")
    graph.metadata["input_encoding"] = "frames"
    nir.write(tmp_path / "model.nir", graph)
    frames = build.dyadic(rng, 3, STEPS + 1, 6, low=-8, high=16)
    spec, first, last = network.neurons["if1"], graph.nodes["affine0"], graph.nodes["readout"]
    currents = frames @ first.weight.T + first.bias
    potential, fired = np.broadcast_to(spec.v_init, (3, 5)).copy(), []
    for t in range(STEPS):
        waiting = currents[:, :STEPS].sum(1) if t == 0 else 0 * currents[:, 0]
        potential = potential + (currents[:, t] if schedule == "synchronous" else waiting)
        fired.append(potential >= spec.threshold)
        potential = potential - spec.threshold * fired[-1]
    outputs = np.stack(fired).astype(np.float32) @ last.weight.T + last.bias
    client = ClientNetwork(read_graph(tmp_path / "model.nir"), PlainNeurons)
    logits = client(torch.from_numpy(frames), STEPS).detach().numpy()
    assert np.array_equal(client.spikes["if1"].numpy(), np.stack(fired))
    assert np.array_equal(logits, outputs.cumsum(0) / np.arange(1, STEPS + 1, dtype=np.float32)[:, None, None])
    with pytest.raises(InputError, match="5 frames for 6 steps"):
        client(torch.from_numpy(frames), STEPS + 2)
    with pytest.raises(InputError, match=r"must be floats \(batch, steps, 6\)"):
        client(torch.from_numpy(frames[:, 0]), STEPS)


@pytest.mark.parametrize("name", ["summing", "joined"])
def test_a_network_of_integers_that_was_lowered(tmp_path: Path, name: str) -> None:
    """It holds the image for T of its steps and then feeds zero, and the layers' windows are in v_bias."""
    network = lowered(lowered_networks.integers(name), STEPS)
    client, images = client_of(network, tmp_path), pictures(network, 3)
    check(client, client(torch.from_numpy(images)), simulate(network, images))


@pytest.mark.parametrize("method", [COS(rho=4), SRP(tau=3)])
def test_states_of_each_sample(tmp_path: Path, method: Any) -> None:
    network = build.residual(np.random.default_rng(3))
    client, images = client_of(network, tmp_path), build.images(network, 5)
    expected = simulate(network, images, STEPS, calibration=method)
    assert expected.states is not None
    given = {
        "v_init": {name: torch.from_numpy(values) for name, values in expected.states.v_init.items()},
        "silent": {name: torch.from_numpy(values) for name, values in expected.states.silent.items()},
    }
    check(client, client(torch.from_numpy(images), STEPS, **given), expected)
    plain = simulate(network, images, STEPS)
    check(client, client(torch.from_numpy(images), STEPS), plain)


def test_every_batch_starts_anew(tmp_path: Path) -> None:
    network = build.residual(np.random.default_rng(1))
    client = client_of(network, tmp_path)
    for samples in (4, 2, 4):
        images = build.images(network, samples, samples)
        check(client, client(torch.from_numpy(images)), simulate(network, images))


def test_names_that_torch_has_its_own_use_for(tmp_path: Path) -> None:
    network = build.sequential(np.random.default_rng(0), (4,), [build.affine(np.random.default_rng(1), 4, 5), build.IF])
    names = {"affine0": "type", "if1": "block.if", "readout": "forward"}
    nodes = {names.get(name, name): node for name, node in network.graph.nodes.items()}
    edges = [(names.get(a, a), names.get(b, b)) for a, b in network.graph.edges]
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    network = replace(network, graph=graph, neurons={"block.if": network.neurons["if1"]})
    client, images = client_of(network, tmp_path), build.images(network, 2)
    check(client, client(torch.from_numpy(images)), simulate(network, images))


def test_every_type_of_node_has_a_module() -> None:
    assert {*SYNAPSES, "IF"} == set(known_types())


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    network = build.residual(np.random.default_rng(1))
    client, images = client_of(network, tmp_path), torch.from_numpy(build.images(network, 2))
    with pytest.raises(InputError, match=r"must be floats \(batch, 2, 6, 5\), and are torch.float32 \(2, 6, 5\)"):
        client(images[0])
    with pytest.raises(InputError, match=r"are torch.uint8"):
        client(images.to(torch.uint8))
    with pytest.raises(InputError, match="at least 1"):
        client(images, 0)


@pytest.mark.parametrize("field", ["weight", "stride", "bias"])
def test_a_node_that_is_not_whole_is_named(tmp_path: Path, field: str) -> None:
    write_nir(build.residual(np.random.default_rng(1)), tmp_path / "model.nir")
    with h5py.File(tmp_path / "model.nir", "a") as file:
        node = file["node/nodes/conv1"]
        del node[field]
        if field == "bias":
            node[field] = np.zeros(3, np.float32)
    with pytest.raises(NetworkError, match=r"Node 'conv1' \(Conv2d\) cannot be made a module of"):
        ClientNetwork(read_graph(tmp_path / "model.nir"), PlainNeurons)


def test_a_file_of_another_tool_is_refused(tmp_path: Path) -> None:
    node = nir.IF(np.ones(3, np.float32), np.ones(3, np.float32))
    graph = {"input": nir.Input(np.array([3])), "if": node, "output": nir.Output(np.array([3]))}
    nir.write(tmp_path / "other.nir", nir.NIRGraph(graph, [("input", "if"), ("if", "output")]))
    with pytest.raises(NetworkError, match=r"other.nir is not of schema 'cos-export/1'.*cos_export.read_nir"):
        read_graph(tmp_path / "other.nir")


def test_metadata_that_is_not_known_is_refused(tmp_path: Path) -> None:
    write_nir(build.residual(np.random.default_rng(1)), tmp_path / "model.nir")
    for key, value in {"readout": "last", "input_encoding": "rate", "schema": "cos-export/9"}.items():
        graph = nir.read(tmp_path / "model.nir")
        graph.metadata[key] = value
        nir.write(tmp_path / "changed.nir", graph)
        with pytest.raises(NetworkError, match=key):
            read_graph(tmp_path / "changed.nir")


def test_one_number_for_a_layer_is_demanded_by_name(tmp_path: Path) -> None:
    layer = client_of(build.residual(np.random.default_rng(0)), tmp_path).graph.layers["if1"]
    several = np.linspace(1, 2, layer.threshold.size, dtype=np.float32)
    assert uniform("One", layer, "threshold", np.full(3, 2.5, np.float32)) == 2.5
    with pytest.raises(NetworkError, match=r"One has one threshold for all .* 'if1' has several, from 1 to 2"):
        uniform("One", layer, "threshold", several)


def test_a_client_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nir(build.residual(np.random.default_rng(0)), tmp_path / "model.nir")
    with pytest.raises(InputError, match=r"no client 'nest'. The clients are sinabs, snntorch, norse, spikingjelly"):
        load(tmp_path / "model.nir", "nest")  # type: ignore[arg-type]
    for client in CLIENTS:
        monkeypatch.setitem(sys.modules, client, None)
        monkeypatch.delitem(sys.modules, f"cos_export.clients.neurons.{client}", raising=False)
        with pytest.raises(UnavailableError, match=f"cos-export targets --install {client}"):
            load(tmp_path / "model.nir", client)


def test_load_takes_the_neurons_of_the_client_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build.residual(np.random.default_rng(2))
    write_nir(network, tmp_path / "model.nir")
    stand_in = ModuleType("norse")
    stand_in.neurons = PlainNeurons  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cos_export.clients.neurons.norse", stand_in)
    client, images = load(tmp_path / "model.nir", "norse"), build.images(network, 2)
    check(client, client(torch.from_numpy(images)), simulate(network, images))


def test_nothing_is_imported_but_numpy_h5py_and_torch(tmp_path: Path) -> None:
    """Clients pin other versions of nir, and their environments have none of our other packages."""
    network = build.residual(np.random.default_rng(2))
    write_nir(network, tmp_path / "model.nir")
    np.save(tmp_path / "images.npy", build.images(network, 2))
    program = """
import sys
for name in "nir nirtorch onnx onnxruntime pydantic typer rich jinja2 matplotlib safetensors".split():
    sys.modules[name] = None
import numpy as np, torch
from cos_export.clients.network import ClientNetwork
from cos_export.clients import load
from cos_export.clients.nir_graph import read_graph
from plain_neurons import PlainNeurons
client = ClientNetwork(read_graph(sys.argv[1] + "/model.nir"), PlainNeurons)
np.save(sys.argv[1] + "/logits.npy", client(torch.from_numpy(np.load(sys.argv[1] + "/images.npy"))).detach().numpy())
"""
    path = [Path(cos_export.__file__).parents[1], Path(__file__).parents[2] / "helpers"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=environment)
    expected = simulate(network, np.load(tmp_path / "images.npy")).logits
    assert np.array_equal(np.load(tmp_path / "logits.npy"), expected)
