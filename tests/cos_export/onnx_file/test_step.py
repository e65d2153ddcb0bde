"""One step as a graph, looped over as its names say, against the reference: every spike and every logit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import onnx
import pytest
import random_networks as build
import torch
from bundles import change_manifest, relist
from eight_bit_networks import TOPOLOGIES, in_integers, pictures, topology, with_node
from hypothesis import given, settings
from hypothesis import strategies as st
from lowered_networks import integers, joined
from small_networks import two_layers
from step_loop import Run, in_evaluator, in_runtime, loop, rounded

import cos_export as ce
from cos_export.errors import BundleError, ParityError
from cos_export.network import SpikingNetwork
from cos_export.network.schedule import Schedule
from cos_export.network.workload import multiply_accumulates
from cos_export.onnx_file import build_step_model, step, step_check, write_step
from cos_export.onnx_file.step_interface import step_interface
from cos_export.simulation import simulate
from targets.onnxruntime import OnnxRuntimeTarget


def layerwise(network: SpikingNetwork) -> SpikingNetwork:
    neurons = {name: replace(spec, reset="subtract", v_reset=None) for name, spec in network.neurons.items()}
    return replace(network.with_neurons(neurons), schedule="layerwise")


def check(network: SpikingNetwork, images: Any, steps: int, *backends: Callable[[onnx.ModelProto], Run]) -> None:
    model, about = build_step_model(network, steps), step_interface(network, steps).to_dict()
    onnx.checker.check_model(model, full_check=True)
    expected = simulate(network, images, steps, device="cpu")
    for backend in backends:
        fired, logits = loop(backend(model), about, rounded(network, images))
        for name in network.layers:
            np.testing.assert_array_equal(fired[name], expected.spikes[name], err_msg=name)
        np.testing.assert_allclose(logits, expected.logits[-1], rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.booleans())
def test_random_networks(seed: int, steps: int, windows: bool) -> None:
    network = build.random_network(seed)
    check(layerwise(network) if windows else network, build.images(network, 3, seed), steps, in_runtime)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(TOPOLOGIES), st.integers(1, 4), st.booleans())
def test_random_integers(seed: int, name: str, steps: int, windows: bool) -> None:
    network = in_integers(topology(name), seed)
    check(layerwise(network) if windows else network, pictures(network, 2, seed), steps, in_runtime)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_reference_evaluator_of_onnx_agrees(name: str) -> None:
    for network in (topology(name), layerwise(topology(name))):
        check(network, build.images(network, 2), 3, in_evaluator)
    for network in (in_integers(topology(name), 5), layerwise(in_integers(topology(name), 5))):
        check(network, pictures(network, 2), 3, in_evaluator)


@pytest.mark.parametrize("name", TOPOLOGIES)
@pytest.mark.parametrize("windows", [False, True])
def test_integers_are_integers_throughout(name: str, windows: bool) -> None:
    network = in_integers(topology(name), 1)
    model = build_step_model(layerwise(network) if windows else network, 3)
    kinds = {onnx.TensorProto.DataType.Name(entry.data_type) for entry in model.graph.initializer}
    assert kinds <= {"INT8", "INT32", "INT64", "UINT8", "BOOL"}
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    for entry in (*typed.value_info, *typed.input, *typed.output):
        assert onnx.TensorProto.DataType.Name(entry.type.tensor_type.elem_type) in {
            "INT8",
            "INT32",
            "INT64",
            "UINT8",
            "BOOL",
        }
    weights = {node.input[1] for node in model.graph.node if node.op_type in ("ConvInteger", "MatMulInteger")}
    stored = {entry.name: entry.data_type for entry in model.graph.initializer}
    assert weights and {stored[name] for name in weights} == {onnx.TensorProto.INT8}


def test_sums_beyond_seven_bits_are_taken_apart() -> None:
    """A window of 17 x 17 spikes, one of 17 x 17 inputs below and above 0, and a spike added to an input."""
    rng = np.random.default_rng(0)
    large = [build.conv2d(rng, 2, 3), "if", build.pool(nir.SumPool2d, 17), build.conv2d(rng, 3, 4, (1, 1), padding=0)]
    wide = build.sequential(rng, (2, 17, 17), [*large, "if"])
    inputs = build.sequential(rng, (2, 17, 17), [build.pool(nir.SumPool2d, 17), build.conv2d(rng, 2, 3, (1, 1)), "if"])
    both = build.sequential(rng, (3, 6, 6), [build.conv2d(rng, 3, 3), "if", build.conv2d(rng, 3, 4), "if"])
    edges = [*both.graph.edges, ("input", "conv2d2")]
    both = replace(both, graph=nir.NIRGraph(dict(both.graph.nodes), edges, type_check=False))
    for network in (in_integers(one, 3) for one in (wide, inputs, both)):
        for scheduled in (network, layerwise(network)):
            check(scheduled, pictures(scheduled, 3), 3, in_runtime, in_evaluator)


def test_sums_that_are_always_negative_are_zero_beyond_the_border() -> None:
    """Between two convolutions -336..-264: 72 fit into a byte, and the zero of the padding does not."""
    rng = np.random.default_rng(0)
    layers = [build.conv2d(rng, 2, 3), "if", build.conv2d(rng, 3, 3, groups=3), build.conv2d(rng, 3, 4), "if"]
    network = in_integers(build.sequential(rng, (2, 5, 4), layers), 3)
    small: Any = network.graph.nodes["conv2d2"]
    network = with_node(network, "conv2d2", weight=np.clip(small.weight, -4, 4), bias=0 * small.bias - 300)
    low = replace(network.neurons["if4"], threshold=0 * network.neurons["if4"].threshold + 9000)
    network = network.with_nodes({"if4": build.spiking_node(low)}).with_neurons({"if4": low})
    for scheduled in (network, layerwise(network)):
        check(scheduled, pictures(scheduled, 3), 3, in_runtime, in_evaluator)


@pytest.mark.parametrize("network", [layerwise(joined(48)), integers("joined")], ids=["float32", "int8"])
def test_a_layer_that_nothing_reads_has_all_of_its_window(network: SpikingNetwork) -> None:
    """It opens with the readout's, and closes T - 1 steps after: the readout must not take more of its biases."""
    about = step_interface(network, 3)
    assert about.steps == 3 + 2 * 4 == max(state.last_step or 0 for state in about.states)
    check(network, build.images(network, 3), 3, in_runtime, in_evaluator)


class _Joined(torch.nn.Module):
    """Strides, groups, a residual and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3, stride=2, padding=1), ce.QCFS(levels=4))
        self.left = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, padding=1, groups=2), ce.QCFS(levels=4))
        self.right = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 1), ce.QCFS(levels=4))
        self.last = torch.nn.Sequential(torch.nn.Conv2d(8, 4, 3, stride=2), ce.QCFS(levels=4))
        self.head = torch.nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        one = self.first(images)
        joined = torch.cat([self.left(one) + one, self.right(one)], 1)
        logits: torch.Tensor = self.head(self.last(joined).flatten(1))
        return logits


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
@pytest.mark.parametrize("numerics", ["float32", "int8"])
def test_a_captured_network_in_a_bundle(tmp_path: Path, schedule: Schedule, numerics: str) -> None:
    torch.manual_seed(0)
    images = np.random.default_rng(0).normal(size=(6, 2, 11, 11)).astype(np.float32)
    network = ce.capture(_Joined().eval(), images[:1])
    network = network if numerics == "float32" else ce.quantise(network, images, steps=4)
    network = ce.calibrate(network, images, method="half", steps=4, schedule=schedule)
    bundle = ce.export(network, tmp_path / "b", 4, golden=images)
    about = json.loads((bundle.path / "manifest.json").read_text("utf-8"))["step"]
    model = onnx.load(bundle.step_path)
    assert about["file"] == bundle.step_path.name
    assert all(entry.doc_string for entry in (model, model.graph, *model.graph.input, *model.graph.output))
    assert f"Run it {about['steps']} times" in model.doc_string
    held = {entry.key: entry.value for entry in model.metadata_props}
    assert held["v_init_encoding"].startswith("initializer")
    fired, logits = loop(in_runtime(model), about, rounded(network, images))
    golden = bundle.golden.trace
    differing = sum(int((fired[name] != golden.spikes[name]).sum()) for name in network.layers)
    assert differing == 0 or (numerics == "float32" and differing < 20)
    if not differing:
        np.testing.assert_allclose(logits, golden.logits[-1], rtol=1e-4, atol=1e-4)
    assert sum(array.sum() for array in fired.values()) > 0


@pytest.mark.parametrize("method", [ce.COS(rho=3), ce.SRP(tau=3)], ids=["cos", "srp"])
@pytest.mark.parametrize("whole", [False, True])
def test_states_of_each_sample_go_in_where_they_start(tmp_path: Path, method: Any, whole: bool) -> None:
    network = in_integers(topology("pooling"), 2) if whole else two_layers(seed=1)
    images = pictures(network, 4) if whole else build.images(network, 4)
    reference = simulate(network, images, 4, calibration=method, device="cpu")
    about = write_step(network, tmp_path / "step.onnx", 4, images, reference).to_dict()
    states = reference.states
    assert states is not None
    first: dict[str, Any] = {f"silent/{name}": mask for name, mask in states.silent.items()}
    first |= {f"v/{name}": np.floor(v).astype(np.int32) if whole else v for name, v in states.v_init.items()}
    assert bool(states.silent) == all(state["silent"] for state in about["states"])
    fired, _ = loop(in_runtime(onnx.load(tmp_path / "step.onnx")), about, rounded(network, images), first)
    for name in network.layers:
        np.testing.assert_array_equal(fired[name], reference.spikes[name])


def _weight(model: onnx.ModelProto) -> None:
    for entry in model.graph.initializer:
        if entry.name == "conv2d2/weight":
            entry.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(entry)[::-1].copy(), entry.name))


def _reset(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.output[0] == "v_next/if1").input[1] = "if1/one"


def _readout(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.output[0] == "output").op_type = "Neg"


@pytest.mark.parametrize("change", [_weight, _reset, _readout])
@pytest.mark.parametrize("whole", [False, True])
def test_a_step_that_computes_something_else_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[onnx.ModelProto], None], whole: bool
) -> None:
    rng = np.random.default_rng(0)
    network = build.sequential(rng, (2, 8, 8), [build.conv2d(rng, 2, 8), "if", build.conv2d(rng, 8, 8), "if"])
    network = in_integers(network, 0) if whole else network
    images = pictures(network, 3) if whole else build.images(network, 3)
    made = step.StepGraph.model

    def spoiled(graph: step.StepGraph, **choices: Any) -> onnx.ModelProto:
        model = made(graph, **choices)
        change(model)
        return model

    monkeypatch.setattr(step.StepGraph, "model", spoiled)
    with pytest.raises(ParityError, match="step graph"):
        write_step(network, tmp_path / "a.onnx", 3, images, simulate(network, images, 3, device="cpu"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("products", "samples"), [(0.0, 1), (2.5, 2), (1e9, 3)])
def test_of_much_work_fewer_samples_are_checked(
    products: float, samples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as `LOOPED_WORK` allows, one at least and three at most."""
    network = two_layers(seed=1)
    images = build.images(network, 4)
    reference = simulate(network, images, 2, device="cpu")
    monkeypatch.setattr(step_check, "LOOPED_WORK", products * multiply_accumulates(network) * 2)
    interface = write_step(network, tmp_path / "step.onnx", 2, images, reference)
    checked = step_check.check_step(network, tmp_path / "step.onnx", interface, images, reference)
    assert checked.spike_slots == samples * sum(spikes[:, 0].size for spikes in reference.spikes.values())


def test_bundles_of_before_have_no_step_and_those_of_today_must(tmp_path: Path) -> None:
    images = build.images(two_layers(seed=1), 3)
    bundle = ce.export(two_layers(seed=1), tmp_path / "b", 2, golden=images)
    bundle.step_path.unlink()

    def without(manifest: dict[str, Any]) -> None:
        del manifest["files"]["model_step.onnx"], manifest["step"]

    change_manifest(bundle.path, without)
    with pytest.raises(BundleError, match=r"files lacks model_step\.onnx"):
        ce.load(bundle.path)
    change_manifest(bundle.path, lambda manifest: manifest.update(format="cos-export-bundle/2"))
    relist(bundle.path)
    assert ce.verify(ce.load(bundle.path), targets=[OnnxRuntimeTarget(threads=1)]).passed


def test_arrays_beside_the_step_are_in_the_bundle(tmp_path: Path) -> None:
    images = build.images(two_layers(seed=1), 3)
    bundle = ce.export(two_layers(seed=1), tmp_path / "b", 2, golden=images, external_above=500)
    assert {"model.onnx.data", "model_step.onnx.data"} <= set(ce.load(bundle.path).manifest["files"])
    fired, _ = loop(in_runtime(onnx.load(bundle.step_path)), bundle.manifest["step"], images)
    for name, spikes in bundle.golden.trace.spikes.items():
        np.testing.assert_array_equal(fired[name], spikes)
