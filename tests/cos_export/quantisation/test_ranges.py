from __future__ import annotations

import itertools
import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import nir
import numpy as np
import pytest
from eight_bit_networks import TOPOLOGIES, in_integers, pictures, topology, with_node
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import IF, affine, conv2d, images, pool, sequential

from cos_export.errors import InputError, NetworkError
from cos_export.exporting import export
from cos_export.network import NeuronSpec, Quantisation, SpikingNetwork
from cos_export.quantisation import check_ranges, layer_ranges, loihi_report, quantise
from cos_export.quantisation.intervals import Interval, carried
from cos_export.simulation import simulate
from cos_export.simulation.fixed_point import LARGEST_POTENTIAL


def dense(weight: Any, bias: Any, threshold: float = 100.0, v_init: float = 50.5) -> SpikingNetwork:
    """Spikes of as many neurons as the input has values, and behind them a layer with these weights, called "if3"."""
    weight = np.asarray(weight, np.float32)
    inputs, rng = weight.shape[1], np.random.default_rng(0)
    network = sequential(rng, (inputs,), [affine(rng, inputs, inputs), IF, affine(rng, inputs, len(weight)), IF])
    network = with_node(in_integers(network, 0), "affine2", weight=weight, bias=np.asarray(bias, np.float32))
    # The layer before stays where it is: what comes to it is never negative, and below its threshold.
    network = with_node(network, "affine0", weight=np.eye(inputs, dtype=np.float32), bias=np.zeros(inputs, np.float32))
    first = replace(network.neurons["if1"], threshold=np.full(inputs, 300, np.float32))
    network = replace(network.with_neurons({"if1": first}), quantisation=Quantisation(1.0, 0, 255))
    spec = network.neurons["if3"]
    thresholds, starts = (np.full(spec.shape, value, np.float32) for value in (threshold, v_init))
    changed = replace(spec, threshold=thresholds, v_init=starts)
    return network.with_neurons({"if3": changed})


def of_layer(network: SpikingNetwork, name: str, steps: int = 4) -> Any:
    return next(entry for entry in layer_ranges(network, steps) if entry.name == name)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_the_bounds_of_a_current_are_reached(seed: int) -> None:
    """Every set of spikes is tried: the largest current and the least are those of the proof."""
    rng = np.random.default_rng(seed)
    weight, bias = rng.integers(-128, 128, (3, 7)), rng.integers(-500, 500, 3)
    actual = of_layer(dense(weight, bias), "if3")
    currents = [weight @ np.array(spikes) + bias for spikes in itertools.product((0, 1), repeat=7)]
    assert (actual.current_minimum, actual.current_maximum) == (np.min(currents), np.max(currents))
    assert actual.largest_sum == (np.abs(weight).sum(1) + np.abs(bias)).max()
    assert (actual.weight_minimum, actual.weight_maximum) == (weight.min(), weight.max())
    assert actual.bias_largest == np.abs(bias).max()


@pytest.mark.parametrize("at_once", [1, 20, 2**20])
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_bounds_of_groups_a_few_rows_at_a_time(groups: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each product at the end of its interval, or 0 where a border leaves it out, added up one by one."""
    monkeypatch.setattr("cos_export.quantisation.intervals._AT_ONCE", at_once)
    rng = np.random.default_rng(groups)
    weight, bias = rng.integers(-128, 128, (6, 6 // groups, 3, 3)), rng.integers(-500, 500, 6)
    node = nir.Conv2d((5, 5), weight.astype(np.float32), 1, 1, 1, groups, bias.astype(np.float32))
    low, high = -rng.integers(0, 9, 6), rng.integers(0, 9, 6)
    partial = np.maximum(-low, high) + rng.integers(0, 5, 6)
    actual = carried(node, Interval(*(bound.astype(np.float64) for bound in (low, high, partial))), (6, 5, 5))
    for output in range(6):
        least, most, largest = int(bias[output]), int(bias[output]), abs(int(bias[output]))
        for number, kernel in enumerate(weight[output]):
            channel = output * groups // 6 * (6 // groups) + number
            for tap in kernel.ravel():
                products = [int(tap * end) for end in (low[channel], high[channel], 0)]
                least, most = least + min(products), most + max(products)
                largest += int(abs(tap) * partial[channel])
        assert (actual.low[output], actual.high[output], actual.partial[output]) == (least, most, largest)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(TOPOLOGIES), st.booleans())
def test_no_run_leaves_the_proven_ranges(seed: int, name: str, extreme: bool) -> None:
    network = in_integers(topology(name), seed)
    steps = 5
    batch = pictures(network, 6, seed)
    if extreme:
        batch = np.where(np.random.default_rng(seed).random(batch.shape) < 0.5, -9.0, 9.0).astype(np.float32)
    trace = simulate(network, batch, steps, record_potentials=True)
    for entry in layer_ranges(network, steps):
        if entry.name not in network.neurons:
            scaled = trace.logits / network.quantisation.readout_scale  # type: ignore[union-attr]
            sums = scaled * np.arange(1, steps + 1).reshape(-1, 1, 1)
            assert entry.potential_minimum - 0.5 <= sums.min() and sums.max() <= entry.potential_maximum + 0.5
            continue
        v = trace.potentials[entry.name]
        assert entry.potential_minimum <= v.min() and v.max() <= entry.potential_maximum


def test_a_potential_that_climbs_step_by_step() -> None:
    """Ten spikes of 127 against a threshold of 100: it rises by 1170 in each step after the first."""
    network = dense(np.full((1, 10), 127), [0])
    actual = of_layer(network, "if3", steps=4)
    assert (actual.potential_minimum, actual.potential_maximum) == (0, 100 + 1270 + 3 * 1170)
    assert actual.steps_that_fit == 1 + (LARGEST_POTENTIAL - 1370) // 1170
    check_ranges(network, actual.steps_that_fit)
    with pytest.raises(NetworkError, match=r"Layer 'if3': within 7170 steps its potential may reach .* 7169 steps fit"):
        check_ranges(network, actual.steps_that_fit + 1)


def test_a_potential_that_falls_and_one_that_cannot_move() -> None:
    falling = of_layer(dense(np.full((1, 10), -127), [0]), "if3", steps=4)
    assert (falling.potential_minimum, falling.steps_that_fit) == (-4 * 1270, LARGEST_POTENTIAL // 1270)
    still = of_layer(dense(np.full((1, 3), 20), [0]), "if3", steps=4)
    assert (still.potential_minimum, still.potential_maximum, still.steps_that_fit) == (0, 160, None)


def test_initial_potentials_of_each_sample_are_allowed_for() -> None:
    network = dense(np.full((1, 10), 127), [0])
    plain, each = (layer_ranges(network, 4, per_sample=choice)[1] for choice in (False, True))
    assert each.potential_maximum == plain.potential_maximum - 100 + 2**22 - 0.5
    assert each.steps_that_fit is not None and plain.steps_that_fit is not None
    assert each.steps_that_fit < plain.steps_that_fit


def test_sums_that_float32_cannot_hold_are_named() -> None:
    rng = np.random.default_rng(0)
    network = in_integers(sequential(rng, (1100,), [affine(rng, 1100, 2), IF]), 0)
    network = with_node(network, "affine0", weight=np.full((2, 1100), 127, np.float32), bias=np.zeros(2, np.float32))
    with pytest.raises(NetworkError, match="Node 'affine0': its sums may reach 17,741,900"):
        check_ranges(network, 1)
    fits = with_node(network, "affine0", weight=np.full((2, 1100), 120, np.float32))
    assert layer_ranges(fits, 1)[0].current_maximum == 127 * 120 * 1100


def test_a_window_counts_as_often_as_it_is_wide() -> None:
    rng = np.random.default_rng(0)
    network = in_integers(
        sequential(rng, (2, 6, 6), [conv2d(rng, 2, 3), IF, pool(nir.SumPool2d, 2), conv2d(rng, 3, 1), IF]), 0
    )
    network = with_node(network, "conv2d3", weight=np.full((1, 3, 3, 3), 5, np.float32), bias=np.zeros(1, np.float32))
    assert of_layer(network, "if4").current_maximum == 4 * 27 * 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight": np.full((1, 3), 128)}, "Node 'affine2': its weights must be integers of -128..127"),
        ({"weight": np.full((1, 3), 0.5)}, r"Node 'affine2': weight\[0, 0\] is 0\.5"),
        ({"bias": np.full(1, 0.5)}, r"Node 'affine2': bias\[0\] is 0\.5"),
        ({"threshold": 10.5}, r"Node 'if3': threshold\[0\] is 10\.5, .* an integer"),
        ({"v_init": 3.0}, r"Node 'if3': v_init\[0\] is 3\.0, .* a half-integer"),
    ],
)
def test_a_number_that_is_no_integer_is_named(change: dict[str, Any], words: str) -> None:
    network = dense(np.full((1, 3), 20), [0])
    for field, value in change.items():
        if field in ("weight", "bias"):
            network = with_node(network, "affine2", **{field: np.asarray(value, np.float32)})
        else:
            spec = network.neurons["if3"]
            changed: dict[str, Any] = {field: np.full(spec.shape, value, np.float32)}
            network = network.with_neurons({"if3": replace(spec, **changed)})
    with pytest.raises(NetworkError, match=words):
        check_ranges(network, 1)


def test_only_networks_of_integers_have_ranges(tmp_path: Any) -> None:
    with pytest.raises(InputError, match="Quantise it first"):
        layer_ranges(topology("residual"), 1)
    averaging = sequential(np.random.default_rng(0), (2, 4, 4), [pool(nir.AvgPool2d, 2), IF])
    averaging = replace(in_integers(averaging, 0), quantisation=Quantisation(1.0))
    with pytest.raises(NetworkError, match="Node 'avgpool2d0': a node of type AvgPool2d does not keep integers"):
        layer_ranges(averaging, 1)
    # What does not fit is not exported.
    network = dense(np.full((1, 10), 127), [0])
    with pytest.raises(NetworkError, match="Layer 'if3': within 9000 steps"):
        export(network, tmp_path / "out", 9000, golden=images(network, 1))
    assert not (tmp_path / "out").exists()


def test_loihi_holds_a_bias_as_mantissa_and_exponent() -> None:
    exponents = {0: 0, 4095: 0, 4096: 1, 8190: 1, 4095 * 128: 7, 4096 * 128: None, -4096: 0, -4097: 1}
    for bias, exponent in exponents.items():
        layer = next(row for row in loihi_report(dense([[3, 2]], [bias]), 1) if row.range.name == "if3")
        assert layer.bias_exponent == exponent, bias
        assert any("a bias of" in words for words in layer.exceeded) == (exponent is None)
    rounded = next(row for row in loihi_report(dense([[3], [2]], [4097, 8190]), 1) if row.range.name == "if3")
    assert (rounded.bias_exponent, rounded.biases_rounded) == (1, 1)


def test_loihi_has_limits_that_are_named() -> None:
    def report(weight: Any, bias: Any = (0,), **numbers: float) -> Any:
        return next(r for r in loihi_report(dense(weight, bias, **numbers), 4) if r.range.name == "if3")

    assert report([[4, 2, 6]]).fits
    assert report([[4, 2]], threshold=2.0**17 - 1, v_init=0.5).fits is False
    assert report([[4, 2]], threshold=2.0**16, v_init=0.5).fits
    assert report([[4, 2]], threshold=2.0**17, v_init=0.5).exceeded[0] == "a threshold of 131,072 in 17 bits"
    wide = report(np.full((1, 300), 127))
    assert any("a current of 0..38,100 in 16 bits" in words for words in wide.exceeded)
    assert (report([[3, 5, 2]]).odd_weights, report([[3, -5, 2]]).odd_weights) == (0, 2)
    assert json.loads(json.dumps(wide.to_dict()))["range"]["current_maximum"] == 38100


def test_even_weights_lose_nothing_on_loihi() -> None:
    network = topology("residual")
    batch = images(network, 6)
    assert any(layer.odd_weights for layer in loihi_report(quantise(network, batch), 4))
    assert not any(layer.odd_weights for layer in loihi_report(quantise(network, batch, even_weights=True), 4))


# --- layer after layer -----------------------------------------------------------------------------------


def one_layer(weight, theta, v_init, count=1):
    """`count` inputs of -127..127 into one neuron, read out as it is."""
    spec = NeuronSpec(np.full(1, theta, np.float32), np.full(1, v_init, np.float32))
    nodes = {
        "input": nir.Input(np.array([count])),
        "fc": nir.Affine(np.full((1, count), weight, np.float32), np.zeros(1, np.float32)),
        "if": nir.IF(np.ones(1), spec.threshold),
        "head": nir.Affine(np.ones((1, 1), np.float32), np.zeros(1, np.float32)),
        "output": nir.Output(np.array([1])),
    }
    names = list(nodes)
    graph = nir.NIRGraph(nodes, list(pairwise(names)), type_check=False)
    return SpikingNetwork(graph, {"if": spec}, quantisation=Quantisation(1.0), schedule="layerwise")


def test_a_window_adds_up_before_anything_fires():
    """v_init + T I: 0.5 + 3 * 127 * 100 at most, where the synchronous neuron would have fired in between."""
    entry = layer_ranges(one_layer(100, 50, 0.5), 3)[0]
    assert (entry.potential_minimum, entry.potential_maximum) == (-38_100.0, 38_100.5)
    # 2^23 - 1 over 12,700 a step.
    assert entry.steps_that_fit == 660
    trace = simulate(one_layer(100, 50, 0.5), np.array([[127.0], [-127.0]], np.float32), 3, record_potentials=True)
    assert trace.potentials["if"][-1, :, 0].tolist() == [38_100.5 - 150, -38_099.5]


def test_a_window_whose_sum_does_not_fit_is_refused_with_its_length():
    network = one_layer(127, 50, 0.5, count=300)
    assert 127 * 127 * 300 * 4 > 2**24 > 127 * 127 * 300 * 3
    with pytest.raises(NetworkError, match=r"'fc': its sums over 4 steps may reach 19,354,800"):
        check_ranges(network, 4)


def test_as_many_thresholds_as_steps_must_be_a_number():
    assert layer_ranges(one_layer(1, 2**20, 0.5), 3)[0].steps_that_fit == 7
