"""The pre-simulation in the graph: images in; logits, spikes and each sample's own states out, as in the reference."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import onnx
import onnxruntime
import pytest
import random_networks as build
import scalar_reference
from eight_bit_networks import TOPOLOGIES, in_integers, pictures, topology
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from small_networks import two_layers

import cos_export as ce
from calibration import COS, SRP, PerSampleMethod
from cos_export.errors import InputError, NetworkError, ParityError
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.onnx_file import build_model, write_onnx, writer
from cos_export.simulation import simulate
from targets.onnxruntime import OnnxRuntimeTarget
from targets.pytorch import PyTorchTarget

METHODS = (COS(rho=1), COS(rho=4), COS(rho=3, iterations=3), SRP(tau=1), SRP(tau=4))


def softly(network: SpikingNetwork) -> SpikingNetwork:
    neurons = {name: replace(spec, reset="subtract", v_reset=None) for name, spec in network.neurons.items()}
    return network.with_neurons(neurons)


def outputs(model: onnx.ModelProto, images: Any) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["images"]
    assert not session.get_overridable_initializers()
    names = [entry.name for entry in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def check(network: SpikingNetwork, method: PerSampleMethod, images: Any, steps: int, actual: dict[str, Any]) -> None:
    """Not one spike and not one state may differ: the networks' numbers leave nothing to rounding."""
    expected = simulate(network, images, steps, calibration=method, device="cpu")
    assert expected.states is not None
    for name in network.layers:
        np.testing.assert_array_equal(actual[f"spikes/{name}"], expected.spikes[name], err_msg=name)
        if isinstance(method, COS):
            np.testing.assert_array_equal(actual[f"v_init/{name}"], expected.states.v_init[name], err_msg=name)
        else:
            np.testing.assert_array_equal(actual[f"silent/{name}"], expected.states.silent[name], err_msg=name)
    np.testing.assert_allclose(actual["logits"], expected.logits, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(METHODS), st.integers(1, 6), st.integers(1, 4))
def test_random_networks(seed: int, method: PerSampleMethod, steps: int, batch: int) -> None:
    network = softly(build.random_network(seed))
    images = build.images(network, batch, seed)
    check(
        network, method, images, steps, outputs(build_model(network, steps, presimulation=method.presimulation), images)
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(TOPOLOGIES), st.sampled_from(METHODS), st.integers(1, 5))
def test_random_integers(seed: int, name: str, method: PerSampleMethod, steps: int) -> None:
    network = softly(in_integers(topology(name), seed))
    images = pictures(network, 3, seed)
    check(
        network, method, images, steps, outputs(build_model(network, steps, presimulation=method.presimulation), images)
    )


@pytest.mark.parametrize("method", METHODS[2:4], ids=["cos", "srp"])
@pytest.mark.parametrize("whole", [False, True])
def test_onnx_reference_evaluator_agrees(method: PerSampleMethod, whole: bool) -> None:
    network = softly(in_integers(topology("pooling"), 1) if whole else build.residual(np.random.default_rng(1)))
    images = pictures(network, 2) if whole else build.images(network, 2)
    evaluator = ReferenceEvaluator(build_model(network, 3, presimulation=method.presimulation))
    values = evaluator.run(None, {"images": images})
    check(network, method, images, 3, dict(zip(evaluator.output_names, values, strict=True)))


@pytest.mark.parametrize("theta", [1.0, 0.75])
def test_one_neuron_against_the_published_steps_in_plain_numbers(theta: float) -> None:
    """Neurons that take the image as their current, from any start: one sample and one neuron at a time."""
    grid = list(itertools.product(np.arange(-6, 13) / 8, np.arange(-8, 13) / 8))
    starts, currents = (np.array([pair[i] for pair in grid], np.float32) for i in (1, 0))
    count = len(grid)
    spec = NeuronSpec(np.full(count, theta, np.float32), starts)
    nodes = {
        "input": nir.Input(np.array([count])),
        "synapse": nir.Scale(np.ones(count, np.float32)),
        "neuron": nir.IF(np.ones(count, np.float32), spec.threshold),
        "head": nir.Linear(np.ones((1, count), np.float32)),
        "output": nir.Output(np.array([1])),
    }
    graph = nir.NIRGraph(nodes, list(itertools.pairwise(nodes)), type_check=False)
    network = SpikingNetwork(graph, {"neuron": spec})
    for method in (COS(rho=4), COS(rho=4, iterations=3)):
        model = build_model(network, 5, presimulation=method.presimulation)
        actual = outputs(model, currents[None])["v_init/neuron"][0]
        for neuron, (current, start) in enumerate(grid):
            expected = scalar_reference.cos_potential([float(current)] * 4, theta, float(start), method.iterations)
            assert actual[neuron] == pytest.approx(expected, abs=1e-5), (current, start)


def _later(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.name.endswith("/pre1/too_few")).op_type = "Greater"
    for entry in model.graph.initializer:
        if entry.name.endswith("/pre/above"):
            entry.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(entry) + 1, entry.name))


def _louder(model: onnx.ModelProto) -> None:
    for entry in model.graph.initializer:
        if entry.name.endswith("/pre/residual"):
            entry.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(entry) + 100, entry.name))


@pytest.mark.parametrize(("method", "change"), [(COS(rho=3), _later), (SRP(tau=3), _louder)], ids=["cos", "srp"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_graph_that_presimulates_something_else_is_stopped(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: PerSampleMethod,
    change: Callable[[onnx.ModelProto], None],
    whole: bool,
) -> None:
    network = softly(in_integers(topology("convolutions"), 1)) if whole else two_layers(seed=1)
    finished_model = writer.finished_model

    def spoiled(*arguments: Any, **choices: Any) -> onnx.ModelProto:
        model = finished_model(*arguments, **choices)
        change(model)
        return model

    write_onnx(network, tmp_path / "good.onnx", 3, calibration=method)
    monkeypatch.setattr(writer, "finished_model", spoiled)
    with pytest.raises(ParityError, match="pre-simulates something else than the reference"):
        write_onnx(network, tmp_path / "bad.onnx", 3, calibration=method)
    assert [entry.name for entry in tmp_path.iterdir()] == ["good.onnx"]


@pytest.mark.parametrize("method", [COS(rho=3), SRP(tau=3)], ids=["cos", "srp"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_bundle_stands_alone(tmp_path: Path, method: PerSampleMethod, whole: bool) -> None:
    """What ONNX alone can read of it: new images in any number, and states of one's own in place of its."""
    network = softly(in_integers(topology("pooling"), 2)) if whole else two_layers(seed=1)
    images = pictures(network, 6) if whole else build.images(network, 6)
    bundle = ce.export(network, tmp_path / "b", 4, golden=images[:4], calibration=method)
    result = ce.verify(bundle, targets=[OnnxRuntimeTarget(threads=1), PyTorchTarget()])
    assert result.passed and result["onnxruntime"].mismatches == 0
    model = onnx.load(bundle.onnx_path)
    check(network, method, images, 4, outputs(model, images))
    held = {entry.key: entry.value for entry in model.metadata_props}
    assert (held["presimulated_steps"], held["rho"]) == ("3", "3")
    assert held["v_init_encoding"] == ("output" if isinstance(method, COS) else "initializer")
    assert "pre-simulated for 3 steps on each sample" in model.doc_string
    assert all(entry.doc_string for entry in model.graph.output)
    kind = "v_init" if isinstance(method, COS) else "silent"
    states = [f"{kind}/{name}" for name in network.layers]
    cut = onnx.utils.Extractor(model).extract_model(["images", *states], ["logits"])
    assert not any("/pre" in node.name for node in cut.graph.node)
    session = onnxruntime.InferenceSession(cut.SerializeToString(), providers=["CPUExecutionProvider"])
    golden = bundle.golden.trace
    assert golden.states is not None
    given = golden.states.v_init if kind == "v_init" else golden.states.silent
    feeds = {"images": images[:4], **{f"{kind}/{name}": value for name, value in given.items()}}
    np.testing.assert_array_equal(session.run(["logits"], feeds)[0], golden.logits)


def test_a_target_that_presimulates_wrongly_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = softly(in_integers(topology("convolutions"), 1))
    bundle = ce.export(network, tmp_path / "b", 3, golden=pictures(network, 4), calibration=COS(rho=3))
    run = OnnxRuntimeTarget.run

    def wrong(target: OnnxRuntimeTarget, *arguments: Any, **choices: Any) -> Any:
        trace = run(target, *arguments, **choices)
        if choices.get("states") is None and trace.states is not None:
            trace.states.v_init["if1"][0, 0] += 1
        return trace

    monkeypatch.setattr(OnnxRuntimeTarget, "run", wrong)
    result = ce.verify(bundle, targets=[OnnxRuntimeTarget(threads=1)])["onnxruntime"]
    assert result.mismatches == result.local_violations == 0
    assert not result.passed and "of 'if1'" in result.states_fault


def test_what_cannot_be_presimulated_is_refused() -> None:
    network = build.residual(np.random.default_rng(0), reset="value")
    with pytest.raises(NetworkError, match="COS needs the soft reset, and layer 'if1' is reset to a value"):
        build_model(network, 2, presimulation=COS(rho=2).presimulation)
    layerwise = replace(softly(network), schedule="layerwise")
    with pytest.raises(InputError, match="nothing to pre-simulate"):
        build_model(layerwise, 2, presimulation=COS(rho=2).presimulation)
    frames = replace(softly(network), input_encoding="frames")
    with pytest.raises(InputError, match="frames change from step to step"):
        build_model(frames, 2, presimulation=COS(rho=4).presimulation)
