"""What other readers of a file depend on: its versions, how its weights are stored, and what it says of itself."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import random_networks as build
from eight_bit_networks import TOPOLOGIES, in_integers, pictures, topology
from onnx.reference import ReferenceEvaluator

from cos_export.errors import InputError
from cos_export.network import SpikingNetwork
from cos_export.onnx_file import build_model
from cos_export.simulation import simulate


def outputs(model: onnx.ModelProto, images: Any) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def layerwise(network: SpikingNetwork) -> SpikingNetwork:
    neurons = {name: replace(spec, reset="subtract", v_reset=None) for name, spec in network.neurons.items()}
    return replace(network.with_neurons(neurons), schedule="layerwise")


@pytest.mark.parametrize(("opset", "ir"), [(13, 7), (14, 7), (15, 8), (17, 8), (18, 8), (20, 9), (22, 10), (23, 11)])
def test_every_opset_computes_the_same(opset: int, ir: int) -> None:
    networks = [build.random_network(seed) for seed in (0, 3, 6, 9)]
    uniform = build.sequential(
        np.random.default_rng(1), (2, 5, 5), [build.conv2d(np.random.default_rng(2), 2, 4), "if"]
    )
    spec = uniform.neurons["if1"]
    folded = uniform.with_neurons({"if1": replace(spec, threshold=0 * spec.threshold + 2, v_init=0 * spec.v_init + 1)})
    for network in (*networks, *map(layerwise, (*networks[:2], folded))):
        model, images = build_model(network, 3, opset=opset), build.images(network, 3)
        assert (model.opset_import[0].version, model.ir_version) == (opset, ir)
        onnx.checker.check_model(model, full_check=True)
        actual, expected = outputs(model, images), simulate(network, images, 3, device="cpu")
        for name in network.layers:
            assert np.array_equal(actual[f"spikes/{name}"], expected.spikes[name]), name
        np.testing.assert_allclose(actual["logits"], expected.logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("opset", [12, 24, "13", 13.0])
def test_other_opsets_are_refused(opset: Any) -> None:
    with pytest.raises(InputError, match="opset must be"):
        build_model(build.random_network(0), 2, opset=opset)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_weights_of_integers_are_stored_in_a_byte_each(name: str) -> None:
    network = in_integers(topology(name), 2)
    model, images = build_model(network, 3), pictures(network, 2)
    stored = {entry.name: onnx.numpy_helper.to_array(entry) for entry in model.graph.initializer}
    for node_name, node in network.graph.nodes.items():
        for field in ("weight", "scale"):
            value = getattr(node, field, None)
            if value is not None:
                assert stored[f"{node_name}/{field}"].dtype == np.int8
                np.testing.assert_array_equal(stored[f"{node_name}/{field}"], value)
    assert not any(array.dtype == np.float32 and key.endswith(("weight", "ones")) for key, array in stored.items())
    kinds = {node.op_type for node in model.graph.node}
    assert "DequantizeLinear" not in kinds, "OpenVINO and MNN compute other sums from it"
    expected = simulate(network, images, 3, device="cpu")
    evaluator = ReferenceEvaluator(model)
    plain = dict(zip(evaluator.output_names, evaluator.run(None, {"images": images}), strict=True))
    for actual in (outputs(model, images), plain):
        np.testing.assert_array_equal(actual["logits"], expected.logits)
        for layer in network.layers:
            np.testing.assert_array_equal(actual[f"spikes/{layer}"], expected.spikes[layer])


def test_a_network_of_integers_takes_a_quarter_of_the_bytes() -> None:
    rng = np.random.default_rng(0)
    network = build.sequential(rng, (400,), [build.affine(rng, 400, 300), "if", build.affine(rng, 300, 200), "if"])
    integers = build_model(in_integers(network, 0), 4)
    assert integers.ByteSize() < 0.29 * build_model(network, 4).ByteSize()


def test_logits_of_integers_are_one_product() -> None:
    """The exact sum times float32(scale / t): a runtime that divides by multiplying with an inverse says the same."""
    network = in_integers(topology("convolutions"), 4)
    images, steps = pictures(network, 3), 5
    model = build_model(network, steps)
    assert "Div" not in {node.op_type for node in model.graph.node}
    actual = outputs(model, images)
    coding = network.quantisation
    assert coding is not None
    head = network.graph.nodes["readout"]
    spikes = actual[f"spikes/{network.layers[-1]}"].reshape(steps, 3, -1).astype(np.int64)
    sums = np.cumsum(spikes @ head.weight.T.astype(np.int64) + head.bias.astype(np.int64), axis=0)
    for t in range(steps):
        factor = Fraction(float(np.float32(float(Fraction(coding.readout_scale) / (t + 1)))))
        for sample in range(3):
            expected = [np.float32(float(factor * int(value))) for value in sums[t, sample]]
            assert actual["logits"][t, sample].tolist() == expected


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
def test_the_graph_and_every_output_say_what_they_are(schedule: str) -> None:
    network = build.residual(np.random.default_rng(0))
    network = layerwise(network) if schedule == "layerwise" else network
    model = build_model(network, 4)
    assert model.doc_string == model.graph.doc_string
    assert "4 time-steps" in model.doc_string and schedule in model.doc_string
    for entry in (*model.graph.input, *model.graph.output):
        assert entry.doc_string.strip(), entry.name
    held = {entry.key: entry.value for entry in model.metadata_props}
    assert held["v_init_encoding"] == "initializer"
    assert {f"v_init/{name}" for name in network.layers} <= {entry.name for entry in model.graph.initializer}


def test_the_nir_file_says_where_its_own_potentials_are(tmp_path: Path) -> None:
    import nir

    from cos_export.nir_file import write_nir

    write_nir(build.residual(np.random.default_rng(0)), tmp_path / "model.nir")
    assert nir.read(tmp_path / "model.nir").metadata["v_init_encoding"] == "metadata"
