import copy
import errno
import os
from dataclasses import fields, replace
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest
import random_networks as build
from eight_bit_networks import in_integers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cos_export.errors import InputError, NetworkError, StorageError
from cos_export.network import Quantisation, half_potentials
from cos_export.nir_file import read_nir, write_nir
from cos_export.simulation import simulate

_QUIET = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _assert_same_bits(one, other):
    a, b = np.asarray(one), np.asarray(other)
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert a.tobytes() == b.tobytes()


def _assert_same_neurons(network, loaded):
    assert set(network.neurons) == set(loaded.neurons)
    for name, spec in network.neurons.items():
        for entry in fields(spec):
            one, other = getattr(spec, entry.name), getattr(loaded.neurons[name], entry.name)
            if one is None:
                assert other is None, (name, entry.name)
            else:
                _assert_same_bits(one, other)


@_QUIET
@given(seed=st.integers(0, 10_000))
def test_round_trip_is_exact(tmp_path, seed):
    network = replace(build.random_network(seed), rho=seed % 3)
    if seed % 2:
        scales = Quantisation(float(np.float32(0.1)), -128 * (seed % 4 == 1), 127, float(np.float32(1e-3)))
        neurons = {name: replace(spec, scale=np.full(spec.shape[0], 0.1)) for name, spec in network.neurons.items()}
        network = replace(in_integers(network.with_neurons(neurons), seed), quantisation=scales)
    write_nir(network, tmp_path / "model.nir")
    loaded = read_nir(tmp_path / "model.nir")
    _assert_same_neurons(network, loaded)
    assert loaded.graph.edges == network.graph.edges
    assert loaded.shapes == network.shapes
    for name, node in network.graph.nodes.items():
        for field in ("weight", "bias", "scale"):
            if hasattr(node, field):
                _assert_same_bits(getattr(node, field), getattr(loaded.graph.nodes[name], field))
    for key in ("num_timesteps", "method", "rho", "numerics", "quantisation"):
        assert getattr(loaded, key) == getattr(network, key)
    images = build.images(network, 3, seed)
    before, after = simulate(network, images, 5), simulate(loaded, images, 5)
    _assert_same_bits(before.logits, after.logits)
    for name in network.layers:
        _assert_same_bits(before.spikes[name], after.spikes[name])


@given(array=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=6, max_size=6))
@_QUIET
def test_any_potential_survives(tmp_path, array):
    rng = np.random.default_rng(0)
    network = build.sequential(rng, (6,), [build.IF])
    spec = replace(network.neurons["if0"], v_init=np.array(array, np.float32))
    write_nir(network.with_neurons({"if0": spec}), tmp_path / "model.nir")
    _assert_same_bits(read_nir(tmp_path / "model.nir").neurons["if0"].v_init, spec.v_init)


def test_a_second_round_trip_writes_the_same_bytes(tmp_path):
    network = build.random_network(3)
    write_nir(network, tmp_path / "one.nir")
    write_nir(read_nir(tmp_path / "one.nir"), tmp_path / "two.nir")
    assert (tmp_path / "one.nir").read_bytes() == (tmp_path / "two.nir").read_bytes()


def test_metadata_is_the_schema(tmp_path):
    rng = np.random.default_rng(1)
    network = build.sequential(
        rng, (2, 6, 6), [build.conv2d(rng, 2, 3), build.IF], bias_steps=1, silenced=True, levels=4
    )
    record = {"name": "static", "seed": 3, "tune": ["bias"]}
    network = replace(network, method="static", rho=2, calibration=record, calibrated_timesteps=3)
    write_nir(network, tmp_path / "model.nir")
    graph = nir.read(tmp_path / "model.nir")
    kept = {key: value for key, value in graph.metadata.items() if key != "producer"}
    assert kept == {
        "schema": "cos-export/1",
        "num_timesteps": 4,
        "rho": 2,
        "method": "static",
        "calibration": '{"name": "static", "seed": 3, "tune": ["bias"]}',
        "calibrated_timesteps": 3,
        "numerics": "float32",
        "schedule": "synchronous",
        "input_encoding": "constant",
        "readout": "mean",
        "update_order": "charge,fire,reset",
        "dt": 1.0,
        "spike_amplitude": 1.0,
        "v_init_encoding": "metadata",
    }
    assert graph.metadata["producer"].startswith("cos-export ")
    node = graph.nodes["if1"]
    assert set(node.metadata) == {"v_init", "reset_mechanism", "spike_condition", "v_bias", "silent", "levels"}
    assert node.metadata["v_init"].dtype == np.float32
    assert node.metadata["v_init"].shape == node.v_threshold.shape == node.r.shape == (3, 6, 6)
    assert node.metadata["silent"].dtype == np.uint8
    assert node.metadata["v_bias"].shape == (3, 3)
    assert (node.metadata["reset_mechanism"], node.metadata["spike_condition"]) == ("subtract", ">=")
    assert node.metadata["levels"] == 4
    assert (node.r == 1).all()
    assert not node.v_reset.any()


def test_no_steps_no_key(tmp_path):
    network = replace(build.random_network(1), num_timesteps=None)
    write_nir(network, tmp_path / "model.nir")
    assert "num_timesteps" not in nir.read(tmp_path / "model.nir", type_check=False).metadata
    assert read_nir(tmp_path / "model.nir").num_timesteps is None


def test_the_library_reads_it_with_its_own_type_check(tmp_path):
    rng = np.random.default_rng(2)
    layers = [
        build.conv2d(rng, 2, 4),
        build.IF,
        build.pool(nir.SumPool2d),
        build.conv2d(rng, 4, 4, padding="same"),
        build.IF,
    ]
    for number, network in enumerate([build.sequential(rng, (2, 8, 8), layers), build.residual(rng)]):
        write_nir(network, tmp_path / f"{number}.nir")
        graph = nir.read(tmp_path / f"{number}.nir")
        assert graph.check_types()
        assert tuple(graph.nodes["output"].output_type["output"]) == (3,)


def test_sequential_1d_is_read_by_the_library(tmp_path):
    rng = np.random.default_rng(2)
    network = build.sequential(rng, (2, 9), [build.conv1d(rng, 2, 4, stride=2), build.IF])
    write_nir(network, tmp_path / "model.nir")
    assert nir.read(tmp_path / "model.nir").check_types()


def test_the_network_stays_as_it_was(tmp_path):
    network = build.random_network(5)
    network.graph.metadata["note"] = "mine"
    network.graph.metadata["nothing"] = None
    network.graph.nodes["input"].metadata["words"] = np.array(["a", "b"])
    before = copy.deepcopy(network.graph)
    write_nir(network, tmp_path / "model.nir")
    assert list(network.graph.nodes) == list(before.nodes)
    assert network.graph.metadata == {"note": "mine", "nothing": None}
    for name, node in network.graph.nodes.items():
        assert node.metadata.keys() == before.nodes[name].metadata.keys()
        for entry in fields(node):
            one, other = getattr(node, entry.name), getattr(before.nodes[name], entry.name)
            if entry.name not in ("metadata", "input_type", "output_type"):
                np.testing.assert_array_equal(one, other)
    loaded = read_nir(tmp_path / "model.nir")
    assert loaded.graph.metadata == {"note": "mine"}
    assert loaded.graph.nodes["input"].metadata == {}


def test_a_threshold_tuned_in_the_spec_is_what_is_written(tmp_path):
    network = build.random_network(7)
    name = network.layers[0]
    spec = network.neurons[name]
    tuned = half_potentials(replace(spec, threshold=spec.threshold * np.float32(1.7)))
    write_nir(network.with_neurons({name: tuned}), tmp_path / "model.nir")
    node = nir.read(tmp_path / "model.nir", type_check=False).nodes[name]
    np.testing.assert_array_equal(node.v_threshold, tuned.threshold)


def test_strip_v_reset(tmp_path):
    network = build.residual(np.random.default_rng(0))
    write_nir(network, tmp_path / "model.nir", strip_v_reset=True)
    with h5py.File(tmp_path / "model.nir") as file:
        assert "v_reset" not in file["node/nodes/if1"]
        assert "v_threshold" in file["node/nodes/if1"]
    _assert_same_neurons(network, read_nir(tmp_path / "model.nir"))


def test_strip_v_reset_refuses_to_change_the_network(tmp_path):
    rng = np.random.default_rng(0)
    network = build.sequential(rng, (6,), [build.IF], reset="value")
    with pytest.raises(InputError, match="'if0' is reset to a value other than 0"):
        write_nir(network, tmp_path / "model.nir", strip_v_reset=True)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_nothing_and_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "model.nir"
    path.write_text("earlier")

    def fail(draft, content):
        with draft.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(StorageError, match=r"model.nir cannot be written: No space left on device. [\d,.]+ MiB"):
        write_nir(build.random_network(0), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.nir"]
    assert path.read_text() == "earlier"


def test_a_file_that_reads_back_different_is_not_kept(tmp_path, monkeypatch):
    def alter(draft, graph):
        graph = copy.deepcopy(graph)
        graph.nodes["readout"].weight[0, 0] += 1
        original(draft, graph)

    original = nir.write
    monkeypatch.setattr(nir, "write", alter)
    with pytest.raises(NetworkError, match="weight of node 'readout'"):
        write_nir(build.random_network(0), tmp_path / "model.nir")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["v_init", "v_bias", "silent"])
def test_neurons_that_read_back_different_are_not_kept(tmp_path, monkeypatch, key):
    """What is in a node's metadata alone is compared as neurons, not as a field of the node."""

    def alter(draft, graph):
        graph = copy.deepcopy(graph)
        metadata = next(node.metadata for node in graph.nodes.values() if key in node.metadata)
        metadata[key] = (
            np.logical_not(metadata[key]).astype(metadata[key].dtype) if key == "silent" else metadata[key] + 1
        )
        original(draft, graph)

    original = nir.write
    monkeypatch.setattr(nir, "write", alter)
    network = build.random_network(0)
    name = network.layers[0]
    spec = network.neurons[name]
    silent = np.zeros(spec.shape, bool)
    silent.flat[0] = True
    if key == "v_bias":
        spec = replace(spec, bias=np.ones((3, spec.shape[0]), np.float32))
    elif key == "silent":
        spec = replace(spec, silent=silent)
    changed = network.with_neurons({name: spec})
    field = {"v_bias": "bias"}.get(key, key)
    with pytest.raises(NetworkError, match=f"{field} of the neurons"):
        write_nir(changed, tmp_path / "model.nir")
    assert not list(tmp_path.iterdir())


def test_where_it_cannot_be_written(tmp_path):
    network = build.random_network(0)
    with pytest.raises(InputError, match="no folder"):
        write_nir(network, tmp_path / "not" / "model.nir")
    with pytest.raises(InputError, match="is a folder"):
        write_nir(network, tmp_path)


def test_a_name_with_a_slash_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    network = build.sequential(rng, (6,), [build.IF])
    graph = network.graph
    graph.nodes = {name.replace("readout", "read/out"): node for name, node in graph.nodes.items()}
    graph.edges = [tuple(name.replace("readout", "read/out") for name in edge) for edge in graph.edges]
    with pytest.raises(NetworkError, match="'read/out'"):
        write_nir(replace(network, graph=graph), tmp_path / "model.nir")


def layerwise(seed):
    network = build.residual(np.random.default_rng(seed))
    return replace(network, num_timesteps=4, schedule="layerwise")


def test_a_layerwise_graph_says_when_each_layer_fires(tmp_path):
    network = layerwise(3)
    write_nir(network, tmp_path / "model.nir")
    raw = nir.read(tmp_path / "model.nir", type_check=False)
    assert raw.metadata["schedule"] == "layerwise"
    # One layer before if2: 2 (T - 1) = 6.
    assert {name: int(raw.nodes[name].metadata["window_opens"]) for name in ("if1", "if2")} == {"if1": 3, "if2": 6}
    loaded = read_nir(tmp_path / "model.nir")
    assert loaded.schedule == "layerwise"
    images = build.images(network, 2)
    assert np.array_equal(simulate(loaded, images, 4).spikes["if2"], simulate(network, images, 4).spikes["if2"])


def test_a_graph_that_says_nothing_is_synchronous(tmp_path):
    write_nir(layerwise(3), tmp_path / "model.nir")
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        del file["node/metadata/schedule"]
        for name in ("if1", "if2"):
            del file[f"node/nodes/{name}/metadata/window_opens"]
    assert read_nir(tmp_path / "model.nir").schedule == "synchronous"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("node/metadata/schedule", "backwards", "schedule = 'backwards'"),
        ("node/nodes/if2/metadata/window_opens", 5, "'if2' is said to fire after step 5 .* after step 6"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(tmp_path, path, value, message):
    write_nir(layerwise(3), tmp_path / "model.nir")
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        del file[path]
        file[path] = value
    with pytest.raises(NetworkError, match=message):
        read_nir(tmp_path / "model.nir")
