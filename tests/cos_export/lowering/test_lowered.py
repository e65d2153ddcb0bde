"""A layer-wise network that was lowered: spike for spike, in each layer's own window and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import onnxruntime
import pytest
import random_networks as build
from eight_bit_networks import in_integers, pictures, with_node
from hypothesis import given, settings
from hypothesis import strategies as st
from lowered_networks import TOPOLOGIES, check_trace, check_windows, integers, joined, layerwise, summing

import cos_export
from calibration import COS, calibrate
from cos_export.costing import costs
from cos_export.errors import InputError, NetworkError
from cos_export.exporting import export
from cos_export.network import NeuronSpec, SpikingNetwork, half_potentials
from cos_export.network.windows import windows
from cos_export.nir_file import read_nir, write_nir
from cos_export.onnx_file import write_onnx
from cos_export.parity import check_local, verify
from cos_export.quantisation import check_ranges, quantise
from cos_export.simulation import ann_logits, simulate
from cos_export.zoo import load_weights, weights_path
from targets.onnxruntime import OnnxRuntimeTarget


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    numbers=st.integers(0, 10_000),
    steps=st.sampled_from([1, 2, 3, 4, 7]),
    meeting=st.booleans(),
)
def test_integers_fire_the_same_spikes_in_the_same_steps(seed: int, numbers: int, steps: int, meeting: bool) -> None:
    network = integers("joined", seed) if meeting else layerwise(in_integers(summing(seed), numbers))
    images = pictures(network, 3, seed)
    result = cos_export.lowered(network, steps)
    check_trace(network, steps, simulate(result, images, device="cpu"), simulate(network, images, steps, device="cpu"))
    assert all(spec.bias is None or spec.bias.shape[0] == result.num_timesteps for spec in result.neurons.values())
    check_ranges(result, result.num_timesteps or 0)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("seed", range(12))
def test_sums_that_float32_holds_exactly_give_the_same_spikes(seed: int, steps: int) -> None:
    network = layerwise(joined(seed) if seed % 3 == 0 else build.random_network(seed))
    images = build.images(network, 3, seed)
    result = cos_export.lowered(network, steps, input_range=(-1.0, 2.0))
    check_trace(network, steps, simulate(result, images, device="cpu"), simulate(network, images, steps, device="cpu"))


def test_it_takes_as_many_steps_as_the_readout_and_the_image_is_held_for_t() -> None:
    network = integers("residual")
    result = cos_export.lowered(network, 4)
    assert (result.schedule, result.num_timesteps, result.calibrated_timesteps) == ("synchronous", 4 + 3 * 2, 10)
    assert result.input_steps == 4
    assert cos_export.lowered(network, 1).input_steps is None


def test_an_image_that_is_held_on_would_fire_other_spikes() -> None:
    network, steps = integers("residual"), 4
    images, result = pictures(network, 3), cos_export.lowered(network, 4)
    expected = simulate(network, images, steps, device="cpu")
    wrong = simulate(replace(result, input_steps=None), images, device="cpu")
    with pytest.raises(AssertionError):
        check_windows(network, steps, wrong.spikes, expected.spikes)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_onnx_runtime_fires_them_too(tmp_path: Path, name: str) -> None:
    network, steps = integers(name), 3
    images, result = pictures(network, 3), cos_export.lowered(network, 3)
    write_onnx(result, tmp_path / "model.onnx", result.num_timesteps or 0)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    names = ["logits", *(f"spikes/{layer}" for layer in result.layers)]
    actual = dict(zip(names, session.run(names, {"images": images}), strict=True))
    expected = simulate(network, images, steps, device="cpu")
    check_windows(network, steps, {layer: actual[f"spikes/{layer}"] for layer in network.layers}, expected.spikes)
    np.testing.assert_allclose(actual["logits"][-1], expected.logits[-1], rtol=1e-6)


def test_a_bundle_of_it_passes_on_every_target(tmp_path: Path) -> None:
    network = integers("residual")
    images = pictures(network, 4)
    bundle = export(cos_export.lowered(network, 4), tmp_path / "bundle", golden=images)
    result = verify(cos_export.load(tmp_path / "bundle"), [OnnxRuntimeTarget()])
    assert result.passed and bundle.network.input_steps == 4


@pytest.mark.parametrize("make", [lambda: build.residual(np.random.default_rng(5)), lambda: joined(5)])
def test_the_local_check_holds_in_float32_and_finds_an_image_that_is_held_on(make: Any) -> None:
    """With numbers that are rounded at every addition."""
    network = layerwise(make())
    rng = np.random.default_rng(1)
    noisy: dict[str, Any] = {}
    for name, node in network.graph.nodes.items():
        if hasattr(node, "weight"):
            noisy[name] = type(node)(**{**vars_of(node), "weight": rng.normal(size=node.weight.shape) / 3})
    network = network.with_nodes(noisy)
    images = rng.random((4, *network.input_shape), np.float32)
    result = cos_export.lowered(network, 4, input_range=(0.0, 1.0))
    trace = simulate(result, images, device="cpu")
    assert check_local(result, images, trace).violations == 0
    assert check_local(replace(result, input_steps=None), images, trace).violations > 0


def vars_of(node: Any) -> dict[str, Any]:
    names = ("input_shape", "weight", "stride", "padding", "dilation", "groups", "bias")
    return {name: getattr(node, name) for name in names if hasattr(node, name)}


def test_it_costs_the_same_spikes_and_operations() -> None:
    """But for the neurons that bring what is left of an integer bias, and what they meet."""
    network = with_node(integers("residual"), "readout", bias=np.zeros(3, np.float32))
    images = pictures(network, 3)
    expected, actual = costs(network, images, 4), costs(cos_export.lowered(network, 4), images)
    assert actual.operations.spikes == expected.operations.spikes
    for kind in ("effective_acs", "effective_macs", "effective_macs_every_step"):
        assert getattr(actual.operations, kind) == getattr(expected.operations, kind), kind


def test_what_float32_holds_down_is_a_power_of_two_above_every_sum() -> None:
    """One neuron: theta = 1, weight 2 on pixels of 0..1, T = 3: at most 0.5 + 6, which B must bring below 1."""
    spec = NeuronSpec(np.ones(1, np.float32), np.full(1, 0.5, np.float32))
    one = nir.Linear(np.ones((1, 1), np.float32))
    nodes = {"input": nir.Input(np.array([1])), "fc": nir.Affine(np.full((1, 1), 2.0), np.full(1, -0.25))}
    nodes |= {"if": build.spiking_node(spec), "head": one, "output": nir.Output(np.array([1]))}
    names = list(nodes)
    graph = nir.NIRGraph(nodes, list(pairwise(names)), type_check=False)
    result = cos_export.lowered(SpikingNetwork(graph, {"if": spec}, schedule="layerwise"), 3, input_range=(0.0, 1.0))
    neurons = result.neurons["if"]
    # 0.5 + 3 (2 - 0.25) - 1 = 4.75, and 0.5 - 3 * 0.25 - 8.
    assert neurons.v_init == np.float32(-8.25)
    assert neurons.bias is not None and neurons.bias[:, 0].tolist() == [0, 0, 8, 0, 0]
    head: Any = result.graph.nodes["head"]
    assert np.isclose(head.weight.item(), 5 / 3) and head.bias.item() == 0


def test_a_file_says_how_long_the_image_is_held(tmp_path: Path) -> None:
    result = cos_export.lowered(integers("residual"), 4)
    write_nir(result, tmp_path / "model.nir")
    metadata = nir.read(tmp_path / "model.nir", type_check=False).metadata
    assert (metadata["input_encoding"], metadata["input_steps"]) == ("constant_then_zero", 4)
    assert read_nir(tmp_path / "model.nir").input_steps == 4


def test_potentials_that_leave_24_bits_are_refused_with_the_t_that_fits() -> None:
    network = integers("residual")
    with pytest.raises(NetworkError, match=r"Layer 'if1': over 40 steps.*; (\d+) steps fit") as caught:
        cos_export.lowered(network, 40)
    fitting = int(str(caught.value).split("; ")[1].split()[0])
    assert 1 < fitting < 40
    cos_export.lowered(network, fitting)
    with pytest.raises(NetworkError, match=f"{fitting} steps fit"):
        cos_export.lowered(network, fitting + 1)


def test_what_cannot_be_lowered_is_refused() -> None:
    network = layerwise(build.residual(np.random.default_rng(4)))
    with pytest.raises(InputError, match="synchronous already"):
        cos_export.lowered(replace(network, schedule="synchronous"), 4)
    with pytest.raises(InputError, match="input_range="):
        cos_export.lowered(network, 4)
    with pytest.raises(InputError, match="the lesser first"):
        cos_export.lowered(network, 4, input_range=(1.0, 0.0))
    value = replace(build.residual(np.random.default_rng(4), reset="value"), schedule="layerwise")
    with pytest.raises(NetworkError, match="'if1' is reset to a value"):
        cos_export.lowered(value, 4, input_range=(0.0, 1.0))
    edges = [*network.graph.edges, ("skip", "output"), ("flatten", "skip")]
    nodes = {**network.graph.nodes, "skip": build.affine(np.random.default_rng(1), 120, 3)}
    two = replace(network, graph=nir.NIRGraph(nodes, edges, type_check=False))
    with pytest.raises(NetworkError, match="feeds the Output 'output' with others"):
        cos_export.lowered(two, 4, input_range=(0.0, 1.0))


def test_a_lowered_network_is_run_and_nothing_else() -> None:
    network = layerwise(build.residual(np.random.default_rng(4)))
    images = build.images(network, 4)
    result = cos_export.lowered(network, 4, input_range=(-1.0, 2.0))
    for use in (
        lambda: calibrate(result, images, method="half", steps=4),
        lambda: quantise(result, images, steps=4),
        lambda: ann_logits(result, images),
        lambda: simulate(result, images, calibration=COS(rho=2)),
    ):
        with pytest.raises(InputError, match="held for 4 steps only"):
            use()


def test_digits_fires_the_same_spikes_in_integers_and_nearly_all_in_float32() -> None:
    module = cos_export.zoo.build("digits")
    load_weights(module, weights_path("digits"))
    images = cos_export.load_dataset("digits", "test").images[:40].astype(np.float32)
    network = cos_export.capture(module, images[:1])
    network = network.with_neurons({name: half_potentials(spec) for name, spec in network.neurons.items()})
    whole = layerwise(quantise(network, images, steps=4))
    expected = simulate(whole, images, 4, device="cpu")
    check_trace(whole, 4, simulate(cos_export.lowered(whole, 4), images, device="cpu"), expected)
    network = layerwise(network)
    expected = simulate(network, images, 4, device="cpu")
    actual = simulate(cos_export.lowered(network, 4, input_range=(0.0, 1.0)), images, device="cpu")
    opens = windows(network, 4).opens
    differing = [actual.spikes[name][on : on + 4] != expected.spikes[name] for name, on in opens.items()]
    assert np.mean([part.mean() for part in differing]) < 1e-4
    assert np.array_equal(actual.logits[-1].argmax(-1), expected.logits[-1].argmax(-1))
