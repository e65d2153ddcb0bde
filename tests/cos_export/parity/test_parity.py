from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_networks import in_fixed_point, integer_images

from calibration import COS, SRP
from cos_export.bundle.target import Availability
from cos_export.errors import ParityError
from cos_export.exporting import export
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.parity import LocalResult, check_local, compare, verify
from cos_export.parity.rounding import Bounded, bounded_synapse, exact
from cos_export.simulation import simulate
from cos_export.simulation.trace import Trace
from cos_export.terminal.tables import violation_lines


def residual_network(seed: int, **options: object) -> SpikingNetwork:
    """Float32 weights: input, conv, a, {conv, 1x1 shortcut}, b, sum pool, 1x1 conv, flatten, dense, output."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> Any:
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

    def weights(*shape: int) -> Any:
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
    assert bounded.error is not None
    actual, magnitude = naive_float32(node, x, rng)
    assert (np.abs(actual - bounded.value.numpy()) <= bounded.error.numpy()).all()
    # A bound that anything would pass proves nothing: it is at most the sum's length times the rounding unit.
    assert (bounded.error.numpy() <= 1.01 * 102 * 2.0**-24 * magnitude).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_an_error_that_arrives_is_carried_on(seed: int) -> None:
    """Inputs that are off by as much as they may be, in the worst direction for one output."""
    rng = np.random.default_rng(seed)
    weight = (rng.normal(size=(5, 30)) * 10.0 ** rng.uniform(-3, 3)).astype(np.float32)
    node = nir.Affine(weight, rng.normal(size=5).astype(np.float32))
    value = torch.from_numpy(rng.normal(size=(1, 30)))
    error = torch.from_numpy(rng.uniform(0, 1e-4, size=(1, 30)))
    actual = bounded_synapse(node)(Bounded(value, error))
    assert actual.error is not None
    moved = bounded_synapse(node)(exact(value + error * torch.from_numpy(np.sign(weight[:1])))).value
    off = float((moved - actual.value)[0, 0])
    magnitude = float((np.abs(weight[0]) * (value + error).abs().numpy()).sum() + abs(node.bias[0]))
    assert 0 < off <= float(actual.error[0, 0]) < 1.01 * (off + 31 * 2.0**-24 * magnitude)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["conv", "grouped", "affine"]), st.sampled_from([1, 127, 2**23]))
def test_sums_of_integers_are_exact_two_samples_at_a_time(seed: int, kind: str, largest: int) -> None:
    rng = np.random.default_rng(seed)

    def whole(*shape: int) -> np.ndarray:
        return rng.integers(-largest, largest + 1, shape).astype(np.float32)

    node = {
        "conv": nir.Conv2d((5, 5), whole(3, 4, 3, 3), 1, 1, 1, 1, whole(3)),
        "grouped": nir.Conv2d((5, 5), whole(4, 2, 3, 3), 2, 1, 1, 2, whole(4)),
        "affine": nir.Affine(whole(6, 100), whole(6)),
    }[kind]
    x = rng.integers(-255, 256, (int(rng.integers(1, 8)), *((100,) if kind == "affine" else (4, 5, 5))))
    actual = bounded_synapse(node, 0.0)(exact(torch.from_numpy(x).double()))
    assert actual.error is None
    weight, bias = torch.from_numpy(node.weight).long(), torch.from_numpy(node.bias).long()
    if kind == "affine":
        expected = torch.nn.functional.linear(torch.from_numpy(x), weight, bias)
    else:
        stride, groups = (1, 1) if kind == "conv" else (2, 2)
        expected = torch.nn.functional.conv2d(torch.from_numpy(x), weight, bias, stride, 1, 1, groups)
    assert torch.equal(actual.value, expected.double())


@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
@pytest.mark.parametrize("fan_in", [1, 2, 7, 64, 1000])
def test_the_largest_sums_that_there_can_be_do_not_run_into_each_other(fan_in: int, signs: tuple[int, int]) -> None:
    """Every input and every weight at its limit, in both samples that share a number."""
    node = nir.Affine(np.full((1, fan_in), 127, np.float32), np.full(1, 500, np.float32))
    x = torch.tensor(signs, dtype=torch.float64)[:, None].expand(2, fan_in) * 255
    expected = [sign * 127 * 255 * fan_in + 500 for sign in signs]
    assert bounded_synapse(node, 0.0)(exact(x)).value.ravel().tolist() == expected


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
    assert max(layer.largest_bound for layer in (*local.layers.values(), local.readout)) < 1e-3


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
    comparison = compare(network, given_images, reference, wrong)
    assert (
        not comparison.identical
        and comparison.mismatches == 1
        and comparison.layers[layer].mismatches.tolist()[step] == 1
    )
    assert comparison.first is not None
    assert (comparison.first.layer, comparison.first.step, comparison.first.neuron) == (layer, step + 1, (2, 4, 1))
    assert (comparison.first.margin, comparison.first.bound) == pytest.approx((first.margin, first.bound), rel=1e-6)


@pytest.mark.parametrize("calibration", [None, SRP(tau=3)], ids=["static", "per-sample"])
@pytest.mark.parametrize("integers", [True, False])
def test_the_margin_of_the_first_divergence_is_that_of_the_potentials(calibration: SRP | None, integers: bool) -> None:
    """m(t) - theta = v(t) + theta s(t) - theta, from potentials that the reference itself records."""
    network = residual_network(6)
    given_images = images(7)
    if integers:
        network, given_images = in_fixed_point(network, 1), integer_images(network, 5)
    reference = simulate(network, given_images, 4, calibration=calibration, record_potentials=calibration is None)
    again = simulate(network, given_images, 4, states=reference.states, record_potentials=True)
    loud = ~np.zeros((4, 6, 6), bool) if reference.states is None else ~reference.states.silent["b"][4]
    neuron = tuple(int(i) for i in np.argwhere(loud)[-1])
    at = (2, 4, *neuron)
    first = compare(network, given_images, reference, flipped(reference, "b", at)).first
    assert first is not None and (first.layer, first.step, first.sample, first.neuron) == ("b", 3, 4, neuron)
    assert first.fired != again.spikes["b"][at]
    theta = float(network.neurons["b"].threshold[neuron])
    expected = float(again.potentials["b"][at]) + theta * bool(again.spikes["b"][at]) - theta
    if integers:
        assert (first.margin, first.bound) == (expected, 0) and first.margin % 1 == 0.5
    else:
        assert abs(first.margin - expected) <= first.bound < 1e-3


def test_the_first_divergence_is_of_the_earliest_step_then_of_the_first_layer() -> None:
    network, given_images = residual_network(6), images(7)
    reference = simulate(network, given_images, 4)
    wrong = flipped(flipped(flipped(reference, "a", (2, 0, 0, 0, 0)), "b", (1, 4, 1, 1, 1)), "b", (1, 3, 2, 0, 0))
    first = compare(network, given_images, reference, wrong).first
    assert first is not None and (first.layer, first.step, first.sample, first.neuron) == ("b", 2, 3, (2, 0, 0))
    first = compare(network, given_images, reference, flipped(wrong, "a", (1, 4, 3, 5, 5))).first
    assert first is not None and (first.layer, first.step, first.sample, first.neuron) == ("a", 2, 4, (3, 5, 5))


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
    assert not local.readout.violations.any()


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
    network = SpikingNetwork(graph, {"n": NeuronSpec(theta, theta / np.float32(2))})
    strict = network.with_neurons({"n": NeuronSpec(theta, theta / np.float32(2), condition=">")})
    x = np.full((1, 1), 0.5, np.float32)
    good, bad = simulate(network, x, 2), simulate(strict, x, 2)
    assert good.spikes["n"].ravel().tolist() == [True, False]
    assert bad.spikes["n"].ravel().tolist() == [False, True]
    # Float32 may not rely on a tie, so the local check lets it pass as a near tie; end to end it shows.
    local = check_local(network, x, bad)
    assert local.violations == 0 and local.layers["n"].near_ties.tolist() == [1, 0]
    assert compare(network, x, good, bad).mismatches == 2


def test_a_wrong_logit_is_a_violation() -> None:
    network, given_images = residual_network(2), images(3)
    trace = simulate(network, given_images, 3)
    logits = trace.logits.copy()
    logits[1, 4, 2] += 0.01
    local = check_local(network, given_images, replace(trace, logits=logits))
    assert local.violations == 1
    assert (local.listed[0].layer, local.listed[0].step, local.listed[0].sample) == ("output", 2, 4)


@pytest.mark.parametrize("integers", [True, False])
def test_a_logit_that_is_no_number_is_a_violation(integers: bool) -> None:
    network, given_images = residual_network(2), images(3)
    if integers:
        network = in_fixed_point(network, 1)
    trace = simulate(network, given_images, 3)
    logits = trace.logits.copy()
    logits[1, 4, 2] = np.nan
    wrong = replace(trace, logits=logits)
    assert check_local(network, given_images, wrong).violations == 1
    assert not compare(network, given_images, trace, wrong).identical


class Recorded:
    """A target that has a trace ready."""

    def __init__(self, name: str, trace: Trace) -> None:
        self.name, self.trace = name, trace

    def available(self) -> Availability:
        return Availability(ready=True)

    def run(self, *arguments: object, **options: object) -> Trace:
        return self.trace


@pytest.mark.parametrize("order", [["same", "other", "again"], ["other", "same", "again"]])
def test_the_local_check_is_done_once_for_runs_that_are_identical(
    order: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, given_images = residual_network(2), images(3)
    bundle = export(network, tmp_path / "bundle", 3, golden=given_images)
    trace = bundle.golden.trace
    other = flipped(trace, "b", (2, 1, 0, 3, 3))
    checked: list[Trace] = []

    def counted(*arguments: Any, **options: Any) -> LocalResult:
        checked.append(arguments[2])
        return check_local(*arguments, **options)

    monkeypatch.setattr("cos_export.parity.verification.check_local", counted)
    # The same images in batches of the same size: the same sums, bit for bit.
    traces = {"same": trace, "other": other, "again": simulate(network, given_images, 3)}
    result = verify(bundle, [Recorded(name, traces[name]) for name in order])
    assert [seen is other for seen in checked] == [name == "other" for name in order[:2]]
    assert result["same"].passed and result["again"].passed and not result["other"].passed
    assert result["other"].local_violations > 0
    assert all(layer.largest_bound > 0 for layer in result["same"].local.layers.values()), (
        "in float32 there is rounding"
    )
    for name in ("same", "again"):
        alone = verify(bundle, [Recorded(name, traces[name])])
        assert alone.to_dict()["targets"][name]["layers"] == result.to_dict()["targets"][name]["layers"]


def test_logits_alone_make_a_run_another(tmp_path: Path) -> None:
    """A logit's last bit that differs means that the readout is checked by itself."""
    network, given_images = residual_network(2), images(3)
    bundle = export(network, tmp_path / "bundle", 3, golden=given_images)
    trace = bundle.golden.trace
    off = replace(trace, logits=trace.logits + np.float32(0.01))
    result = verify(bundle, [Recorded("same", trace), Recorded("off", off)])
    assert result["same"].passed and not result["off"].passed
    assert result["off"].mismatches == 0 and result["off"].local_violations == trace.logits.size


def test_the_report_names_the_place_and_the_margin(tmp_path: Path) -> None:
    network = in_fixed_point(residual_network(6), 1)
    given_images = integer_images(network, 5)
    bundle = export(network, tmp_path / "bundle", 3, golden=given_images)
    wrong = flipped(bundle.golden.trace, "b", (2, 4, 1, 0, 5))
    result = verify(bundle, [Recorded("chip", wrong)])
    first = result["chip"].comparison.first
    assert first is not None
    verb = "fired" if first.fired else "did not fire"
    place = "layer b, step 3, sample 4, neuron (1, 0, 5)"
    assert all(result["chip"].local.layers[name].largest_bound == 0 for name in network.layers), "integers have none"
    lines = violation_lines(result["chip"])
    assert lines[0] == f"chip: 1 of {result['chip'].comparison.compared:,} spikes differ."
    assert lines[1] == f"chip: first differs at {place}, which {verb}: margin {first.margin:.1f}."
    assert lines[2].startswith(f"chip: local violation at {place}: margin {first.margin:.1f}.")
    said = json.loads(json.dumps(result.to_dict()))["targets"]["chip"]
    assert (said["mismatches"], said["local_violations"] > 0) == (1, True)
    assert said["spikes_compared"] == 3 * 5 * network.neuron_count
    assert said["first_divergence"] == {
        "layer": "b",
        "step": 3,
        "sample": 4,
        "neuron": [1, 0, 5],
        "fired": first.fired,
        "margin": first.margin,
        "bound": 0.0,
    }


def test_traces_that_do_not_match_the_network_are_refused() -> None:
    network, given_images = residual_network(2), images(3)
    trace = simulate(network, given_images, 2)
    with pytest.raises(ParityError, match="'a' should have spikes of shape"):
        check_local(network, given_images, replace(trace, spikes={}))
    with pytest.raises(ParityError, match="the run"):
        compare(network, given_images, trace, simulate(network, given_images, 3))
    with pytest.raises(ParityError, match="do not both hold"):
        compare(network, given_images, trace, replace(trace, spikes={}))
