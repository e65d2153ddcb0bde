"""Networks of integers: PyTorch and ONNX Runtime against Python's own integers, and errors that are planted."""

from __future__ import annotations

import copy
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import onnxruntime
import pytest
from eight_bit_networks import TOPOLOGIES, in_integers, pictures, topology, with_node
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_reference import run
from random_networks import IF, affine, conv2d, sequential

from cos_export.bundle import Bundle
from cos_export.errors import NetworkError, ParityError
from cos_export.exporting import export
from cos_export.network import SpikingNetwork
from cos_export.nir_file import read_nir, write_nir
from cos_export.onnx_file import build_model, write_onnx
from cos_export.parity import TargetParity, verify
from cos_export.parity.local import check_local
from cos_export.simulation import simulate
from targets.onnxruntime import OnnxRuntimeTarget


def in_onnx(network: SpikingNetwork, images: Any, steps: int) -> tuple[Any, dict[str, Any]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(build_model(network, steps).SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    actual = dict(zip(names, session.run(names, {"images": images}), strict=True))
    return actual.pop("logits"), {name.removeprefix("spikes/"): value for name, value in actual.items()}


def assert_integers_of_python(network: SpikingNetwork, images: Any, steps: int) -> None:
    """Every spike and logit of both back ends is what Python's integers say."""
    traced = simulate(network, images, steps, device="cpu")
    logits, spikes = in_onnx(network, images, steps)
    np.testing.assert_array_equal(logits, traced.logits)
    coding = network.quantisation
    assert coding is not None
    for sample, image in enumerate(images):
        expected, means = run(network, image, steps)
        for name, fired in expected.items():
            np.testing.assert_array_equal(traced.spikes[name][:, sample], fired, err_msg=name)
            np.testing.assert_array_equal(spikes[name][:, sample], fired, err_msg=name)
        for t, mean in enumerate(means):
            for index, value in mean.items():
                # Two roundings to float32: of scale / t, and of the product with the exact sum.
                factor = Fraction(float(np.float32(float(Fraction(coding.readout_scale) / (t + 1)))))
                scaled = np.float32(float(value * (t + 1) * factor))
                assert traced.logits[t, sample, index] == scaled


@pytest.mark.parametrize("name", TOPOLOGIES)
@pytest.mark.parametrize("seed", range(2))
def test_every_topology_is_what_integers_say(name: str, seed: int) -> None:
    network = in_integers(topology(name), seed)
    images = pictures(network, 2, seed)
    assert_integers_of_python(network, images, 3)
    fired = np.concatenate([s.ravel() for s in simulate(network, images, 3).spikes.values()])
    assert 0.02 < fired.mean() < 0.98


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(TOPOLOGIES), st.integers(1, 4))
def test_random_integers(seed: int, name: str, steps: int) -> None:
    network = in_integers(topology(name), seed)
    assert_integers_of_python(network, pictures(network, 1, seed), steps)


def test_sums_close_to_the_limit_of_float32_are_exact() -> None:
    rng = np.random.default_rng(0)
    network = in_integers(sequential(rng, (1000,), [affine(rng, 1000, 6), IF]), 0)
    first = network.graph.nodes["affine0"]
    first.weight = np.where(rng.random((6, 1000)) < 0.9, 127, -128).astype(np.float32)
    images = np.where(rng.random((3, 1000)) < 0.75, 2.0, -2.0).astype(np.float32)
    # What a sum may come to on its way, by the order of its terms, and what it comes to: a potential has 24 bits.
    assert 2**23 < 127 * np.abs(first.weight).sum(1).max() < 2**24
    assert 2**22 < np.abs(np.where(images > 0, 127, -127) @ first.weight.T + first.bias).max() < 2**23
    assert_integers_of_python(network, images, 1)


def test_a_readout_of_a_convolution_and_one_step() -> None:
    """Where a runtime may fold the product with the scale into the convolution's weights."""
    rng = np.random.default_rng(1)
    network = in_integers(sequential(rng, (2, 5, 5), [conv2d(rng, 2, 3), IF]), 1)
    nodes, edges = dict(network.graph.nodes), [("input", "conv2d0"), ("conv2d0", "if1"), ("if1", "readout")]
    for name in ("flatten", "readout", "output"):
        del nodes[name]
    nodes["readout"] = copy.copy(nodes["conv2d0"])
    nodes["readout"].weight = rng.integers(-128, 128, (3, 3, 3, 3)).astype(np.float32)
    nodes["output"] = nir.Output(np.array([3, 5, 5]))
    graph = nir.NIRGraph(nodes, [*edges, ("readout", "output")], type_check=False)
    network = replace(network, graph=graph)
    images = pictures(network, 4)
    for steps in (1, 3):
        expected, (logits, spikes) = simulate(network, images, steps, device="cpu"), in_onnx(network, images, steps)
        np.testing.assert_array_equal(logits, expected.logits)
        np.testing.assert_array_equal(spikes["if1"], expected.spikes["if1"])


def test_nir_keeps_the_integers_and_what_they_stand_for(tmp_path: Path) -> None:
    network = in_integers(topology("residual"), 4)
    scales = {name: np.linspace(0.01, 0.02, spec.shape[0]) for name, spec in network.neurons.items()}
    network = replace(network, neurons={n: replace(s, scale=scales[n]) for n, s in network.neurons.items()})
    write_nir(network, tmp_path / "model.nir")
    actual = read_nir(tmp_path / "model.nir")
    assert (actual.numerics, actual.quantisation) == ("int8", network.quantisation)
    for name, spec in actual.neurons.items():
        np.testing.assert_array_equal(spec.scale, scales[name])
    raw = nir.read(tmp_path / "model.nir")
    assert float(raw.metadata["input_scale"]) == network.quantisation.input_scale  # type: ignore[union-attr]
    for node in raw.nodes.values():
        for field in ("weight", "bias", "v_threshold"):
            if getattr(node, field, None) is not None:
                np.testing.assert_array_equal(getattr(node, field), np.rint(getattr(node, field)))
    images = pictures(network, 3)
    np.testing.assert_array_equal(simulate(actual, images, 3).logits, simulate(network, images, 3).logits)


def test_a_graph_without_its_scales_is_refused(tmp_path: Path) -> None:
    network = in_integers(topology("one_axis"), 1)
    write_nir(network, tmp_path / "model.nir")
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        del file["node/metadata/readout_scale"]
    with pytest.raises(NetworkError, match="'int8', and lacks readout_scale"):
        read_nir(tmp_path / "model.nir")


def test_a_file_of_before_has_the_widths_that_its_numerics_say(tmp_path: Path) -> None:
    network = in_integers(topology("one_axis"), 1)
    write_nir(network, tmp_path / "model.nir")
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        assert [int(file["node/metadata"][key][()]) for key in ("weight_bits", "input_bits")] == [8, 8]
        for key in ("weight_bits", "input_bits"):
            del file[f"node/metadata/{key}"]
    actual = read_nir(tmp_path / "model.nir")
    assert (actual.numerics, actual.quantisation) == ("int8", network.quantisation)


@pytest.mark.parametrize(("key", "value", "said"), [("weight_bits", 4, "weight_bits = 4"), ("input_bits", 9, "is 9;")])
def test_a_file_of_other_widths_is_refused(tmp_path: Path, key: str, value: int, said: str) -> None:
    write_nir(in_integers(topology("one_axis"), 1), tmp_path / "model.nir")
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        file[f"node/metadata/{key}"][()] = value
    with pytest.raises(NetworkError, match=said):
        read_nir(tmp_path / "model.nir")


def _changed(network: SpikingNetwork, fault: str) -> SpikingNetwork:
    weight, neurons = network.graph.nodes["conv2"].weight.copy(), dict(network.neurons)
    if fault == "weight":
        weight[1, 2, 0, 1] += 1 if weight[1, 2, 0, 1] < 127 else -1
    elif fault == "kernel":
        weight = np.ascontiguousarray(weight.swapaxes(2, 3))
    elif fault == "v_init":
        v_init = neurons["if1"].v_init.copy()
        v_init[3, 2, 2] += 1
        neurons["if1"] = replace(neurons["if1"], v_init=v_init)
    else:
        bias = neurons["if2"].bias
        assert bias is not None
        neurons["if2"] = replace(neurons["if2"], bias=np.roll(bias, -1, axis=0))
    return replace(with_node(network, "conv2", weight=weight), neurons=neurons)


def _verified(network: SpikingNetwork, other: SpikingNetwork, images: Any, folder: Path) -> TargetParity:
    """What `verify` says of a bundle of `network` whose ONNX graph is that of `other`."""
    bundle = export(network, folder / "bundle", 6, golden=images)
    write_onnx(other, bundle.onnx_path, 6)
    return verify(Bundle(bundle.path, bundle.manifest), [OnnxRuntimeTarget()])["onnxruntime"]


@pytest.mark.parametrize(("fault", "layer"), [("weight", "if2"), ("kernel", "if2"), ("v_init", "if1"), ("bias", "if2")])
def test_a_planted_error_is_found_and_located(fault: str, layer: str, tmp_path: Path) -> None:
    network = topology("residual")
    rng = np.random.default_rng(0)
    bias = {n: rng.normal(size=(6, s.shape[0])).astype(np.float32) for n, s in network.neurons.items()}
    network = replace(network, neurons={n: replace(s, bias=bias[n]) for n, s in network.neurons.items()})
    network = _within_reach(in_integers(network, 5))
    images = pictures(network, 64)
    assert _verified(network, network, images, tmp_path).passed
    actual = _verified(network, _changed(network, fault), images, tmp_path)
    assert not actual.passed and actual.mismatches > 0 and actual.local_violations > 0
    first = actual.local.listed[0]
    assert first.layer == layer and actual.comparison.first is not None and actual.comparison.first.layer == layer
    if fault == "weight":
        assert {violation.neuron[0] for violation in actual.local.listed} == {1}
    if fault == "v_init":
        assert {violation.neuron for violation in actual.local.listed if violation.layer == layer} == {(3, 2, 2)}
        assert abs(first.margin) == 0.5


def _within_reach(network: SpikingNetwork) -> SpikingNetwork:
    """The network with smaller numbers, whose potentials come within one unit of their thresholds often."""
    for name in ("conv1", "conv2", "shortcut", "analog"):
        node = network.graph.nodes[name]
        network = with_node(network, name, weight=np.clip(node.weight, -2, 2), bias=np.clip(node.bias, -5, 5))
    narrow = {}
    for name, spec in network.neurons.items():
        assert spec.bias is not None
        threshold, bias = np.clip(spec.threshold, 20, 40), np.clip(spec.bias, -5, 5)
        narrow[name] = replace(spec, threshold=threshold, v_init=np.clip(spec.v_init, -9.5, 15.5), bias=bias)
    return replace(network, neurons=narrow)


def test_a_logit_that_differs_fails_though_no_spike_does(tmp_path: Path) -> None:
    network = in_integers(topology("residual"), 5)
    other = with_node(network, "readout", bias=network.graph.nodes["readout"].bias + np.array([1, 0, 0], np.float32))
    actual = _verified(network, other, pictures(network, 2), tmp_path)
    assert actual.mismatches == 0 and actual.local_violations > 0 and not actual.passed
    assert {violation.layer for violation in actual.local.listed} == {"output"}


def test_the_local_check_of_integers_has_no_tolerance() -> None:
    """One unit at a sum of many large terms: float32's bound would allow it."""
    rng = np.random.default_rng(0)
    network = in_integers(sequential(rng, (600,), [affine(rng, 600, 5), IF]), 0)
    images = pictures(network, 3)
    trace = simulate(network, images, 2, device="cpu")
    assert check_local(network, images, trace).violations == 0
    spec = network.neurons["if1"]
    currents = simulate(network, images, 1, record_potentials=True).potentials["if1"][0]
    m = currents + spec.threshold * trace.spikes["if1"][0]
    nearest = np.unravel_index(np.abs(m - spec.threshold).argmin(), m.shape)
    trace.spikes["if1"][(0, *nearest)] ^= True
    assert check_local(network, images, trace).layers["if1"].violations[0] == 1


def test_an_onnx_graph_of_other_integers_is_refused_at_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = in_integers(topology("one_axis"), 1)
    other = with_node(network, "readout", bias=network.graph.nodes["readout"].bias + np.float32(1))
    model = build_model(other, 2)
    monkeypatch.setattr("cos_export.onnx_file.writer.finished_model", lambda *_, **__: model)
    with pytest.raises(ParityError, match="logits are not what its own spikes give"):
        write_onnx(network, tmp_path / "model.onnx", 2)
