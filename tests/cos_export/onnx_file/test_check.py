"""The check at the end of `write_onnx`: what it lets through, what it stops, and what a failure leaves behind."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import random_networks as build

from calibration import SRP
from cos_export.errors import InputError, NetworkError, ParityError
from cos_export.network import NeuronSpec
from cos_export.onnx_file import build_model, builder, write_onnx, writer


def _float_network(seed=0):
    """Weights with all of float32's digits, and potentials that start right at the threshold's half."""
    rng = np.random.default_rng(seed)
    layers = [build.conv2d(rng, 2, 8), build.IF, build.conv2d(rng, 8, 8), build.IF, build.conv2d(rng, 8, 8), build.IF]
    network = build.sequential(rng, (2, 12, 12), layers)
    for node in network.graph.nodes.values():
        if hasattr(node, "weight"):
            node.weight = rng.normal(size=node.weight.shape).astype(np.float32) / 4
    ones = np.ones((8, 12, 12), np.float32)
    return network.with_neurons({name: NeuronSpec(ones, ones / np.float32(2)) for name in network.layers})


def test_a_good_file_passes_and_says_how_well(tmp_path):
    network = build.random_network(0)
    actual = write_onnx(network, tmp_path / "model.onnx", 4)
    assert actual.spike_slots == 3 * 4 * network.neuron_count
    assert actual.differing == 0, "dyadic weights leave nothing to rounding"
    assert actual.logit_difference <= 1e-6, "but for the mean over the steps"
    actual = write_onnx(_float_network(), tmp_path / "model.onnx", 4)
    assert actual.spike_slots == 3 * 4 * 3 * 8 * 144
    assert actual.differing < 100
    # A flip near a threshold, where this processor adds in an order of its own, may move a logit further.
    assert actual.differing or actual.logit_difference < 1e-3
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("seed", range(12))
def test_every_kind_of_network_passes(tmp_path, seed):
    write_onnx(build.random_network(seed), tmp_path / "model.onnx", 3, calibration=SRP(tau=2) if seed % 2 else None)


def _spoil(monkeypatch, change):
    finished_model = writer.finished_model

    def spoiled(*arguments, **choices):
        model = finished_model(*arguments, **choices)
        change(model)
        return model

    monkeypatch.setattr(writer, "finished_model", spoiled)


def _initializer(model, name, change):
    for entry in model.graph.initializer:
        if entry.name == name:
            entry.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(entry)), name))


def _node(model, name):
    return next(node for node in model.graph.node if node.name == name)


def _wrong_weight(model):
    _initializer(model, "conv2d2/weight", lambda array: array[::-1].copy())


def _wrong_potential(model):
    _initializer(model, "v_init/if3", lambda array: array + np.float32(0.01))


def _wrong_comparison(model):
    _node(model, "if5/t2/fired").op_type = "Less"


def _forgotten_reset(model):
    _node(model, "if1/t2/charge").input[0] = "if1/t1/charge"


def _wrong_readout(model):
    _initializer(model, "readout/bias", lambda array: array + np.float32(0.1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_wrong_weight, "do not explain, by layer: 'if3'"),
        (_wrong_potential, "do not explain, by layer: 'if3'"),
        (_wrong_comparison, "do not explain, by layer: 'if5'"),
        (_forgotten_reset, "do not explain, by layer: 'if1'"),
        (_wrong_readout, "logits are not what its own spikes give: at step 1 "),
    ],
)
def test_a_file_that_computes_something_else_is_stopped(tmp_path, monkeypatch, change, message):
    (tmp_path / "model.onnx").write_text("earlier")
    _spoil(monkeypatch, change)
    with pytest.raises(ParityError, match=message):
        write_onnx(_float_network(), tmp_path / "model.onnx", 3)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "earlier"


def test_a_silenced_neuron_that_speaks_is_stopped(tmp_path, monkeypatch):
    def speak(model):
        _initializer(model, "silent/if1", np.zeros_like)

    _spoil(monkeypatch, speak)
    network = build.residual(np.random.default_rng(0), silenced=True)
    with pytest.raises(ParityError, match="'if1'"):
        write_onnx(network, tmp_path / "model.onnx", 3)


def test_a_graph_that_onnx_refuses_is_stopped(tmp_path, monkeypatch):
    def lose(model):
        del model.graph.node[0]

    _spoil(monkeypatch, lose)
    with pytest.raises(NetworkError, match="cannot be run"):
        write_onnx(build.random_network(0), tmp_path / "model.onnx", 2)
    assert not list(tmp_path.iterdir())


def test_arrays_too_large_for_a_model_in_memory(monkeypatch):
    monkeypatch.setattr(builder, "MAX_BYTES", 4000)
    with pytest.raises(NetworkError, match="puts them into a file beside it"):
        build_model(_float_network(), 2)


def test_too_many_steps_for_one_file(tmp_path, monkeypatch):
    network = build.random_network(0)
    monkeypatch.setattr(builder, "MAX_BYTES", 2 * build_model(network, 1).ByteSize())
    with pytest.raises(NetworkError, match="unroll fewer steps"):
        write_onnx(network, tmp_path / "model.onnx", 100)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("steps", [0, -1])
def test_steps_below_one(tmp_path, steps):
    with pytest.raises(InputError, match="at least 1"):
        write_onnx(build.random_network(0), tmp_path / "model.onnx", steps)


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        write_onnx(build.random_network(0), tmp_path / "none" / "model.onnx", 2)


def test_the_network_is_not_changed(tmp_path):
    network = build.residual(np.random.default_rng(1), bias_steps=1)
    before = {name: replace(spec) for name, spec in network.neurons.items()}
    weight = network.graph.nodes["conv1"].weight.copy()
    write_onnx(network, tmp_path / "model.onnx", 2)
    np.testing.assert_array_equal(network.graph.nodes["conv1"].weight, weight)
    for name, spec in network.neurons.items():
        np.testing.assert_array_equal(spec.v_init, before[name].v_init)
