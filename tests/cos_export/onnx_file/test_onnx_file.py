"""The unrolled graph against `simulate`, with numbers that float32 adds exactly: not one spike may differ."""

from dataclasses import replace

import nir
import numpy as np
import onnx
import onnxruntime
import pytest
import random_networks as build
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.onnx_file import build_model, without_spikes, write_onnx
from cos_export.simulation import simulate


def _session(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _run(session, images):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def _assert_equal(network, model, images, steps, *, exact=True):
    actual = _run(_session(model), images)
    expected = simulate(network, images, steps, device="cpu")
    assert actual["logits"].shape == expected.logits.shape
    for name in network.layers:
        assert actual[f"spikes/{name}"].dtype == np.bool_
        assert actual[f"spikes/{name}"].shape == expected.spikes[name].shape
        assert not (actual[f"spikes/{name}"] != expected.spikes[name]).any(), name
    if exact:
        np.testing.assert_array_equal(actual["logits"], expected.logits)
    else:
        np.testing.assert_allclose(actual["logits"], expected.logits, rtol=1e-5, atol=1e-5)
    assert any(expected.spikes[name].any() for name in network.layers)
    return expected


_RNG = np.random.default_rng(0)

_SYNAPSES = {
    "stride": ((2, 9, 10), build.conv2d(_RNG, 2, 4, stride=2, padding=1)),
    "uneven stride and padding": ((2, 9, 10), build.conv2d(_RNG, 2, 4, (3, 2), stride=(1, 2), padding=(2, 0))),
    "same": ((2, 7, 8), build.conv2d(_RNG, 2, 4, (3, 3), padding="same")),
    "uneven same": ((2, 7, 8), build.conv2d(_RNG, 2, 4, (2, 4), padding="same")),
    "valid": ((2, 7, 8), build.conv2d(_RNG, 2, 4, (2, 3), padding="valid")),
    "dilation": ((2, 9, 9), build.conv2d(_RNG, 2, 4, dilation=(2, 3), padding=2)),
    "groups": ((4, 6, 6), build.conv2d(_RNG, 4, 8, groups=2)),
    "depthwise": ((4, 6, 6), build.conv2d(_RNG, 4, 4, groups=4)),
    "conv1d": ((3, 12), build.conv1d(_RNG, 3, 4, 5, stride=2, padding=2)),
    "conv1d same, dilated, grouped": ((4, 12), build.conv1d(_RNG, 4, 4, 4, padding="same", dilation=2, groups=2)),
    "affine": ((7,), build.affine(_RNG, 7, 9)),
    "linear": ((7,), nir.Linear(build.dyadic(_RNG, 9, 7))),
    "scale": ((3, 4, 5), nir.Scale(build.dyadic(_RNG, 3, 4, 5, low=1))),
    "sum pool": ((3, 8, 6), build.pool(nir.SumPool2d)),
    "sum pool of 3": ((3, 9, 9), build.pool(nir.SumPool2d, 3)),
    "overlapping, padded sum pool": ((3, 7, 8), build.pool(nir.SumPool2d, (3, 2), 1, 1)),
    "average pool": ((3, 8, 6), build.pool(nir.AvgPool2d)),
    "average pool of 3": ((3, 9, 9), build.pool(nir.AvgPool2d, 3)),
    "overlapping, padded average pool": ((3, 7, 8), build.pool(nir.AvgPool2d, 3, 2, 1)),
    "partial flatten": ((3, 4, 5), nir.Flatten(None, 1, -1)),
    "flatten of the front": ((3, 4, 5), nir.Flatten(None, -3, -2)),
}


@pytest.mark.parametrize("case", _SYNAPSES)
def test_every_synapse(case):
    """Once fed by the constant input and once by spikes."""
    shape, node = _SYNAPSES[case]
    rng = np.random.default_rng(1)
    network = build.sequential(rng, shape, [node, build.IF])
    _assert_equal(network, build_model(network, 3), build.images(network, 3), 3)
    network = build.sequential(rng, shape, [build.IF, node, build.IF])
    _assert_equal(network, build_model(network, 3), build.images(network, 3), 3)


@pytest.mark.parametrize("steps", range(1, 9))
def test_every_number_of_steps_and_any_batch_from_one_file(steps):
    network = build.residual(np.random.default_rng(2))
    model = build_model(network, steps)
    for batch in (1, 5):
        _assert_equal(network, model, build.images(network, batch), steps)


@pytest.mark.parametrize("condition", [">=", ">"])
@pytest.mark.parametrize("reset", ["subtract", "value"])
@pytest.mark.parametrize("extra", [{}, {"silenced": True}, {"bias_steps": 1}, {"silenced": True, "bias_steps": 1}])
def test_every_kind_of_neuron(condition, reset, extra):
    network = build.residual(np.random.default_rng(3), condition=condition, reset=reset, **extra)
    images = build.images(network, 4)
    expected = _assert_equal(network, build_model(network, 5), images, 5)
    if condition == ">=" and not extra:
        # Ties happen, so the two comparisons do differ.
        strict = {name: replace(spec, condition=">") for name, spec in network.neurons.items()}
        other = simulate(network.with_neurons(strict), images, 5)
        assert any((other.spikes[name] != expected.spikes[name]).any() for name in network.layers)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), steps=st.integers(1, 6), batch=st.integers(1, 4))
def test_random_networks(seed, steps, batch):
    network = build.random_network(seed)
    actual = _run(_session(build_model(network, steps)), build.images(network, batch, seed))
    expected = simulate(network, build.images(network, batch, seed), steps, device="cpu")
    for name in network.layers:
        assert np.array_equal(actual[f"spikes/{name}"], expected.spikes[name])
    np.testing.assert_array_equal(actual["logits"], expected.logits)


def test_a_uniform_threshold_is_one_number():
    rng = np.random.default_rng(4)
    network = build.sequential(rng, (2, 5, 5), [build.conv2d(rng, 2, 3), build.IF, build.IF])
    ones = np.ones((3, 5, 5), np.float32)
    each = build.dyadic(rng, 3, 5, 5, low=2, high=8, unit=0.25)
    half = np.float32(0.5)
    network = network.with_neurons({"if1": NeuronSpec(ones, half * ones), "if2": NeuronSpec(each, half * each)})
    model = build_model(network, 3)
    arrays = {entry.name: onnx.numpy_helper.to_array(entry) for entry in model.graph.initializer}
    assert arrays["threshold/if1"].shape == ()
    np.testing.assert_array_equal(arrays["threshold/if2"], each)
    np.testing.assert_array_equal(arrays["v_init/if2"], each[None] / 2)
    _assert_equal(network, model, build.images(network, 2), 3)


# --- the graph itself ------------------------------------------------------------------------------------


def test_what_the_constant_input_feeds_is_computed_once():
    network = build.residual(np.random.default_rng(9))
    model = build_model(network, 4)
    names = [node.name for node in model.graph.node if node.op_type == "Conv"]
    assert sorted(names) == sorted(
        ["conv1/current", "analog/current"]
        + [f"{name}/t{t}/current" for name in ("conv2", "shortcut") for t in range(1, 5)]
    )
    assert "if1/t3/charge" in {node.name for node in model.graph.node}


def test_pruning_takes_out_what_only_spikes_need():
    network = build.residual(np.random.default_rng(10), silenced=True)
    model = build_model(network, 4)
    before = model.SerializeToString()
    pruned = without_spikes(model)
    assert model.SerializeToString() == before
    assert [output.name for output in pruned.graph.output] == ["logits"]
    assert len(pruned.graph.node) < len(model.graph.node)
    assert not [node for node in pruned.graph.node if node.op_type in ("And", "Concat") and node.output[0] != "logits"]
    onnx.checker.check_model(pruned, full_check=True)
    images = build.images(network, 3)
    np.testing.assert_array_equal(_run(_session(pruned), images)["logits"], _run(_session(model), images)["logits"])


def test_onnx_reference_evaluator_agrees():
    network = build.residual(np.random.default_rng(11), silenced=True, bias_steps=1)
    model, images = build_model(network, 3), build.images(network, 2)
    evaluator = ReferenceEvaluator(model)
    arrays = {entry.name: onnx.numpy_helper.to_array(entry) for entry in model.graph.initializer}
    defaults = {entry.name: arrays[entry.name] for entry in model.graph.input if entry.name in arrays}
    actual = dict(zip(evaluator.output_names, evaluator.run(None, {"images": images, **defaults}), strict=True))
    expected = simulate(network, images, 3)
    np.testing.assert_array_equal(actual["logits"], expected.logits)
    for name in network.layers:
        np.testing.assert_array_equal(actual[f"spikes/{name}"], expected.spikes[name])


def test_names_that_look_like_ours_do_not_collide():
    rng = np.random.default_rng(12)
    network = build.sequential(rng, (2, 5, 5), [build.conv2d(rng, 2, 3), build.IF])
    new = {"conv2d0": "v_init", "if1": "bias", "readout": "threshold", "input": "logits", "output": "images"}
    graph = network.graph
    renamed = nir.NIRGraph(
        {new.get(name, name): node for name, node in graph.nodes.items()},
        [(new.get(a, a), new.get(b, b)) for a, b in graph.edges],
        type_check=False,
    )
    spec = replace(network.neurons["if1"], bias=build.dyadic(rng, 2, 3))
    network = SpikingNetwork(renamed, {"bias": spec})
    model = build_model(network, 3)
    onnx.checker.check_model(model, full_check=True)
    _assert_equal(network, model, build.images(network, 2), 3)


def test_metadata_and_versions(tmp_path):
    network = replace(build.residual(np.random.default_rng(13)), method="static", rho=0)
    write_onnx(network, tmp_path / "model.onnx", 3)
    model = onnx.load(tmp_path / "model.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["schema"] == "cos-export/1"
    assert (metadata["steps"], metadata["num_timesteps"], metadata["rho"]) == ("3", "4", "0")
    assert (metadata["method"], metadata["numerics"], metadata["readout"]) == ("static", "float32", "mean")
    assert metadata["producer"].startswith("cos-export")
    assert (model.opset_import[0].version, model.ir_version) == (13, 7)
    dimensions = [entry.dim_param or entry.dim_value for entry in model.graph.output[0].type.tensor_type.shape.dim]
    assert dimensions == [3, "batch", 3]


def test_written_bytes_are_the_same_each_time(tmp_path):
    network = build.random_network(14)
    for name in ("one", "two"):
        write_onnx(network, tmp_path / name, 2)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
