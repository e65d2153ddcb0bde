"""The layer-wise schedule in ONNX: one pass of each synapse, and the reference's spikes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import random_networks as build
from eight_bit_networks import in_integers, pictures, topology
from onnx.reference import ReferenceEvaluator

from cos_export.network import SpikingNetwork
from cos_export.onnx_file import write_onnx
from cos_export.simulation import simulate


def layerwise(network: SpikingNetwork) -> SpikingNetwork:
    neurons = {name: replace(spec, reset="subtract", v_reset=None) for name, spec in network.neurons.items()}
    return replace(network.with_neurons(neurons), schedule="layerwise")


def run(path: Path, network: SpikingNetwork, images: Any) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = ["logits", *(f"spikes/{name}" for name in network.layers)]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


@pytest.mark.parametrize("steps", [1, 3, 4])
@pytest.mark.parametrize("seed", range(8))
def test_every_spike_is_the_references(tmp_path: Path, seed: int, steps: int) -> None:
    network = layerwise(build.random_network(seed))
    images = build.images(network, 5, seed)
    check = write_onnx(network, tmp_path / "model.onnx", steps)
    assert check.spike_slots > 0
    actual, expected = run(tmp_path / "model.onnx", network, images), simulate(network, images, steps, device="cpu")
    for name in network.layers:
        assert np.array_equal(actual[f"spikes/{name}"], expected.spikes[name]), name
    np.testing.assert_allclose(actual["logits"], expected.logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["convolutions", "pooling", "residual", "one_axis", "scaled"])
def test_integers_are_equal_to_the_bit_in_two_runtimes(tmp_path: Path, name: str) -> None:
    network = layerwise(in_integers(topology(name), 5))
    images = pictures(network, 3)
    write_onnx(network, tmp_path / "model.onnx", 4)
    expected = simulate(network, images, 4, device="cpu")
    actual = run(tmp_path / "model.onnx", network, images)
    names = list(actual)
    plain = ReferenceEvaluator(str(tmp_path / "model.onnx")).run(names, {"images": images})
    for other in (actual, dict(zip(names, plain, strict=True))):
        assert np.array_equal(other["logits"], expected.logits)
        for layer in network.layers:
            assert np.array_equal(other[f"spikes/{layer}"], expected.spikes[layer]), layer


def test_a_synapse_before_neurons_runs_once_whatever_t(tmp_path: Path) -> None:
    network = layerwise(build.residual(np.random.default_rng(2)))
    counts = []
    for steps in (2, 6):
        write_onnx(network, tmp_path / "model.onnx", steps)
        kinds = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
        counts.append(kinds.count("Conv"))
        assert kinds.count("Gemm") == steps
    assert counts == [4, 4]


def test_potentials_and_thresholds_that_are_one_per_channel_cost_no_pass(tmp_path: Path) -> None:
    """The graph takes them into its synapses, where a change of the initializer still changes what runs."""
    rng = np.random.default_rng(4)
    layers = [build.conv2d(rng, 2, 4), build.IF, build.conv2d(rng, 4, 4), build.IF]
    network = layerwise(build.sequential(rng, (2, 5, 5), layers))
    neurons = {
        name: replace(spec, threshold=np.full_like(spec.threshold, 1.5), v_init=np.full_like(spec.v_init, 0.75))
        for name, spec in network.neurons.items()
    }
    network = network.with_neurons(neurons)
    write_onnx(network, tmp_path / "model.onnx", 4)
    model = onnx.load(tmp_path / "model.onnx")
    names = {node.name for node in model.graph.node}
    assert not any(f"{layer}/{part}" in names for layer in network.layers for part in ("charge", "ratio"))
    images = rng.normal(size=(8, 2, 5, 5)).astype(np.float32)
    moved = network.with_neurons({"if1": replace(neurons["if1"], v_init=neurons["if1"].v_init + 1.5)})
    for entry in model.graph.initializer:
        if entry.name == "v_init/if1":
            entry.CopyFrom(
                onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(entry) + np.float32(1.5), entry.name)
            )
    onnx.save(model, tmp_path / "moved.onnx")
    actual, expected = run(tmp_path / "moved.onnx", network, images), simulate(moved, images, 4, device="cpu")
    assert np.array_equal(actual["spikes/if1"], expected.spikes["if1"])
    assert not np.array_equal(actual["spikes/if1"], simulate(network, images, 4, device="cpu").spikes["if1"])


def test_what_feeds_two_layers_is_not_folded(tmp_path: Path) -> None:
    network = layerwise(build.residual(np.random.default_rng(4)))
    whole = {
        name: replace(spec, threshold=np.full_like(spec.threshold, 1.5), v_init=np.full_like(spec.v_init, 0.75))
        for name, spec in network.neurons.items()
    }
    edges = [*network.graph.edges, ("conv1", "if2")]
    graph = type(network.graph)(dict(network.graph.nodes), edges, type_check=False)
    network = replace(network.with_neurons(whole), graph=graph)
    write_onnx(network, tmp_path / "model.onnx", 3)
    names = {node.name for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert "if1/charge" in names and "if2/charge" in names
    images = build.images(network, 4)
    actual, expected = run(tmp_path / "model.onnx", network, images), simulate(network, images, 3, device="cpu")
    assert all(np.array_equal(actual[f"spikes/{name}"], expected.spikes[name]) for name in network.layers)
