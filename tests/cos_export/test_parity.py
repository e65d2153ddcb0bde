from __future__ import annotations

from dataclasses import replace

import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import COS, SRP
from cos_export.errors import ParityError
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.parity import check_local, compare
from cos_export.parity.rounding import bounded_synapse, exact
from cos_export.simulation import simulate
from cos_export.trace import Trace


def residual_network(seed: int, **options: object) -> SpikingNetwork:
    """Float32 weights: input, conv, a, {conv, 1x1 shortcut}, b, sum pool, 1x1 conv, flatten, dense, output."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    theta = {name: np.full((4, 6, 6), value, np.float32) for name, value in (("a", 0.7), ("b", 0.9))}
    nodes = {
        "input": nir.Input({"input": np.array([2, 6, 6])}),
        "c1": nir.Conv2d((6, 6), weights(4, 2, 3, 3), 1, 1, 1, 1, weights(4)),
        "a": nir.IF(np.ones((4, 6, 6), np.float32), theta["a"]),
        "c2": nir.Conv2d((6, 6), weights(4, 4, 3, 3), 1, 1, 1, 1, weights(4)),
        "skip": nir.Conv2d((6, 6), weights(4, 4, 1, 1), 1, 0, 1, 1, weights(4)),
        "b": nir.IF(np.ones((4, 6, 6), np.float32), theta["b"]),
        "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "mix": nir.Conv2d((3, 3), weights(4, 4, 1, 1), 1, 0, 1, 1, weights(4)),
        "flat": nir.Flatten({"input": np.array([4, 3, 3])}, -3, -1),
        "head": nir.Affine(weights(3, 36), weights(3)),
        "output": nir.Output({"output": np.array([3])}),
    }
    edges = [("input", "c1"), ("c1", "a"), ("a", "c2"), ("a", "skip"), ("c2", "b"), ("skip", "b"), ("b", "pool")]
    edges += [("pool", "mix"), ("mix", "flat"), ("flat", "head"), ("head", "output")]
    specs = {name: NeuronSpec(value, value / 2, **options) for name, value in theta.items()}  # type: ignore[arg-type]
    return SpikingNetwork(nir.NIRGraph(nodes, edges), specs)


def images(seed: int, count: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 2, 6, 6)).astype(np.float32)


def flipped(trace: Trace, layer: str, at: tuple[int, ...]) -> Trace:
    spikes = {name: value.copy() for name, value in trace.spikes.items()}
    spikes[layer][at] ^= True
    return replace(trace, spikes=spikes)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["conv", "grouped", "affine", "pool", "average", "scale"]))
def test_float32_sums_stay_within_the_bound_in_any_order(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) * 10.0 ** rng.uniform(-3, 3)).astype(np.float32)

    node = {
        "conv": nir.Conv2d((5, 5), weights(3, 4, 3, 3), 1, 1, 1, 1, weights(3)),
        "grouped": nir.Conv2d((5, 5), weights(4, 2, 3, 3), 2, 1, 1, 2, weights(4)),
        "affine": nir.Affine(weights(6, 100), weights(6)),
        "pool": nir.SumPool2d(np.array([3, 3]), np.array([1, 1]), np.array([0, 0])),
        "average": nir.AvgPool2d(np.array([3, 3]), np.array([1, 1]), np.array([0, 0])),
        "scale": nir.Scale(weights(4, 5, 5)),
    }[kind]
    x = weights(2, 100) if kind == "affine" else weights(2, 4, 5, 5)
    bounded = bounded_synapse(node)(exact(torch.from_numpy(x).double()))
    found, magnitude = naive_float32(node, x, rng)
    assert (np.abs(found - bounded.value.numpy()) <= bounded.error.numpy()).all()
    # A bound that anything would pass proves nothing: it is at most the sum's length times the rounding unit.
    assert (bounded.error.numpy() <= 1.01 * 102 * 2.0**-24 * magnitude).all()


def naive_float32(node: nir.NIRNode, x: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The node in float32, products added one by one in a random order; and sum |w| |x| + |b|."""
    linear = torch.zeros((1, *x.shape[1:]), dtype=torch.float64)
    apply = bounded_synapse(node)
    offset = apply(exact(linear)).value.numpy()
    columns = []
    size = int(np.prod(x.shape[1:]))
    for index in range(size):
        unit = torch.zeros(size, dtype=torch.float64)
        unit[index] = 1.0
        columns.append(apply(exact(unit.reshape(1, *x.shape[1:]))).value.numpy() - offset)
    matrix = np.stack(columns).reshape(size, -1).astype(np.float32)
    result = np.empty((len(x), matrix.shape[1]), np.float32)
    for sample, row in enumerate(x.reshape(len(x), -1)):
        total = offset.astype(np.float32).ravel().copy()
        for index in rng.permutation(size):
            total = total + matrix[index] * row[index]
        result[sample] = total
    magnitude = np.abs(x.reshape(len(x), -1)).astype(np.float64) @ np.abs(matrix) + np.abs(offset.ravel())
    shape = (len(x), *offset.shape[1:])
    return result.reshape(shape), magnitude.reshape(shape)


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_the_reference_has_no_local_violation(steps: int) -> None:
    network, given_images = residual_network(steps), images(steps)
    trace = simulate(network, given_images, steps)
    local = check_local(network, given_images, trace, batch_size=2)
    assert local.violations == 0
    # and the bound is small enough to mean something: it grows with T and stays far below any weight.
    assert max(layer.largest_bound for layer in local.layers.values()) < 1e-3


@pytest.mark.parametrize("options", [{"condition": ">"}, {"silent": np.eye(6, dtype=bool)[None].repeat(4, 0)}])
def test_other_neurons_have_no_local_violation(options: dict[str, object]) -> None:
    network, given_images = residual_network(1, **options), images(2)
    assert check_local(network, given_images, simulate(network, given_images, 4)).violations == 0


def test_bias_per_step_and_hard_reset_have_no_local_violation() -> None:
    rng = np.random.default_rng(3)
    bias = rng.normal(size=(3, 4)).astype(np.float32)
    v_reset = np.full((4, 6, 6), 0.125, np.float32)
    network, given_images = residual_network(1, bias=bias, reset="value", v_reset=v_reset), images(2)
    assert check_local(network, given_images, simulate(network, given_images, 5)).violations == 0


@pytest.mark.parametrize("calibration", [COS(rho=3), SRP(tau=3)])
def test_per_sample_states_are_checked(calibration: COS | SRP) -> None:
    network, given_images = residual_network(4), images(5)
    trace = simulate(network, given_images, 4, calibration=calibration)
    assert check_local(network, given_images, trace, states=trace.states, batch_size=2).violations == 0
    assert check_local(network, given_images, trace).violations > 0, "the wrong states must be noticed"


@pytest.mark.parametrize(("layer", "step"), [("a", 0), ("b", 2), ("b", 3)])
def test_one_flipped_spike_is_found_where_it_is(layer: str, step: int) -> None:
    network, given_images = residual_network(6), images(7)
    reference = simulate(network, given_images, 4)
    at = (step, 3, 2, 4, 1)
    wrong = flipped(reference, layer, at)
    local = check_local(network, given_images, wrong, batch_size=2)
    first = local.listed[0]
    assert (first.layer, first.step, first.sample, first.neuron) == (layer, step + 1, 3, (2, 4, 1))
    assert first.fired == bool(wrong.spikes[layer][at]) and abs(first.margin) > first.bound
    comparison = compare(network, reference, wrong)
    assert comparison.mismatches == 1 and comparison.layers[layer].mismatches.tolist()[step] == 1
    assert comparison.first is not None
    assert (comparison.first.layer, comparison.first.step, comparison.first.neuron) == (layer, step + 1, (2, 4, 1))


def changed_node(network: SpikingNetwork, name: str, **changes: np.ndarray) -> SpikingNetwork:
    nodes = dict(network.graph.nodes)
    nodes[name] = replace(nodes[name], **changes)
    return replace(network, graph=nir.NIRGraph(nodes, network.graph.edges))


def planted(network: SpikingNetwork) -> dict[str, SpikingNetwork]:
    """Networks that a faulty backend would run in place of `network`."""
    c2, a, b = network.graph.nodes["c2"], network.neurons["a"], network.neurons["b"]
    nudged = c2.weight.copy()
    nudged[1, 2, 0, 1] += 0.05
    moved = b.v_init.copy()
    moved[2, 2, 2] += 0.45
    early = np.zeros((1, 4), np.float32)
    early[0] = c2.bias
    return {
        "weight": changed_node(network, "c2", weight=nudged),
        "transposed kernel": changed_node(network, "c2", weight=np.ascontiguousarray(c2.weight.transpose(0, 1, 3, 2))),
        "v_init": network.with_neurons({"b": replace(b, v_init=moved)}),
        "bias twice at the first step": network.with_neurons({"b": replace(b, bias=early)}),
        "threshold": network.with_neurons({"a": replace(a, threshold=a.threshold * np.float32(1.01))}),
        "reset to zero": network.with_neurons({"b": replace(b, reset="value", v_reset=np.zeros_like(b.v_init))}),
    }


@pytest.mark.parametrize(
    "fault", ["weight", "transposed kernel", "v_init", "bias twice at the first step", "threshold", "reset to zero"]
)
def test_a_planted_fault_is_found_in_its_layer(fault: str) -> None:
    network, given_images = residual_network(8), images(9, 24)
    trace = simulate(planted(network)[fault], given_images, 6)
    local = check_local(network, given_images, trace)
    at_fault = "a" if fault == "threshold" else "b"
    assert local.violations > 0
    assert {name for name, layer in local.layers.items() if layer.violations.any()} == {at_fault}


def test_a_strict_comparison_is_found_at_a_tie() -> None:
    """With theta = 1, v_init = 1/2 and a current of 1/2, m(1) is the threshold exactly."""
    theta = np.ones((1,), np.float32)
    nodes = {
        "input": nir.Input({"input": np.array([1])}),
        "w": nir.Affine(np.ones((1, 1), np.float32), np.zeros(1, np.float32)),
        "n": nir.IF(theta, theta),
        "head": nir.Affine(np.ones((2, 1), np.float32), np.zeros(2, np.float32)),
        "output": nir.Output({"output": np.array([2])}),
    }
    graph = nir.NIRGraph(nodes, [("input", "w"), ("w", "n"), ("n", "head"), ("head", "output")])
    network = SpikingNetwork(graph, {"n": NeuronSpec(theta, theta / 2)})
    strict = network.with_neurons({"n": NeuronSpec(theta, theta / 2, condition=">")})
    x = np.full((1, 1), 0.5, np.float32)
    good, bad = simulate(network, x, 2), simulate(strict, x, 2)
    assert good.spikes["n"].ravel().tolist() == [True, False]
    assert bad.spikes["n"].ravel().tolist() == [False, True]
    # Float32 may not rely on a tie, so the local check lets it pass as a near tie; end to end it shows.
    local = check_local(network, x, bad)
    assert local.violations == 0 and local.layers["n"].near_ties.tolist() == [1, 0]
    assert compare(network, good, bad).mismatches == 2


def test_a_wrong_logit_is_a_violation() -> None:
    network, given_images = residual_network(2), images(3)
    trace = simulate(network, given_images, 3)
    logits = trace.logits.copy()
    logits[1, 4, 2] += 0.01
    local = check_local(network, given_images, replace(trace, logits=logits))
    assert local.violations == 1
    assert (local.listed[0].layer, local.listed[0].step, local.listed[0].sample) == ("output", 2, 4)


def test_traces_that_do_not_match_the_network_are_refused() -> None:
    network, given_images = residual_network(2), images(3)
    trace = simulate(network, given_images, 2)
    with pytest.raises(ParityError, match="'a' should have spikes of shape"):
        check_local(network, given_images, replace(trace, spikes={}))
    with pytest.raises(ParityError, match="the run"):
        compare(network, trace, simulate(network, given_images, 3))
    with pytest.raises(ParityError, match="do not both hold"):
        compare(network, trace, replace(trace, spikes={}))
