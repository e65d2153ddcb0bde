from __future__ import annotations

from dataclasses import replace
from functools import reduce
from itertools import pairwise
from typing import Any

import nir
import numpy as np
import pytest
import random_networks as build
from numpy.typing import NDArray
from small_networks import layer, two_layers

from cos_export.errors import InputError, NetworkError
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.network.reparametrisation import with_current_bias, with_thresholds
from cos_export.nir_file import read_nir, write_nir
from cos_export.simulation import ann_logits, simulate

Array = NDArray[Any]

RNG = np.random.default_rng(5)


def reference(network: SpikingNetwork, images: Array, clip: dict[str, Any], added: dict[str, Any]) -> Array:
    """The logits of the clipped artificial network in float64, one sum at a time.

    A layer's activation is clip(z + b, 0, clip) in the unit of the current, with b = `added`, and weighs in the next
    synapse what the network's own thresholds say: weights are divided by them.

    Args:
        network: Unquantised, of Conv2d, SumPool2d, AvgPool2d, Flatten, Affine and Linear.
        images: (samples, ...).
        clip: By layer, (channels,) or a number.
        added: By layer, (channels,) or a number.
    """
    values: dict[str, Array] = {}
    for name in network.order:
        node, sources = network.graph.nodes[name], network.predecessors[name]
        arriving: Array = reduce(np.add, [values[source] for source in sources] or [images.astype(np.float64)])
        if isinstance(node, nir.IF):
            spec, axes = network.neurons[name], (-1, *[1] * (arriving.ndim - 2))
            bound = np.broadcast_to(np.asarray(clip[name], np.float64), spec.shape[:1]).reshape(axes)
            bias = np.broadcast_to(np.asarray(added[name], np.float64), spec.shape[:1]).reshape(axes)
            values[name] = np.minimum(np.maximum(arriving + bias, 0), bound) / spec.threshold.astype(np.float64)
        elif isinstance(node, nir.Conv2d):
            values[name] = _convolve(node, arriving)
        elif isinstance(node, nir.Conv1d):
            flat = nir.Conv2d(None, node.weight[:, :, None], 1, (0, node.padding), 1, node.groups, node.bias)
            values[name] = _convolve(flat, arriving[:, :, None])[:, :, 0]
        elif isinstance(node, (nir.SumPool2d, nir.AvgPool2d)):
            halves = (
                arriving[..., ::2, ::2],
                arriving[..., 1::2, ::2],
                arriving[..., ::2, 1::2],
                arriving[..., 1::2, 1::2],
            )
            values[name] = reduce(np.add, halves) / (4 if isinstance(node, nir.AvgPool2d) else 1)
        elif isinstance(node, nir.Flatten):
            values[name] = arriving.reshape(len(arriving), -1)
        elif isinstance(node, nir.Scale):
            values[name] = arriving * node.scale
        elif isinstance(node, (nir.Affine, nir.Linear)):
            values[name] = arriving @ node.weight.T.astype(np.float64) + getattr(node, "bias", 0)
        else:
            values[name] = arriving
    return values[network.output_name]


def _convolve(node: nir.Conv2d, x: Array) -> Array:
    (py, px), groups = np.broadcast_to(node.padding, 2), int(node.groups)
    x = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)))
    outputs, per_group, ky, kx = node.weight.shape
    result = np.zeros((len(x), outputs, x.shape[2] - ky + 1, x.shape[3] - kx + 1))
    for o in range(outputs):
        first = o // (outputs // groups) * per_group
        for i in range(result.shape[2]):
            for j in range(result.shape[3]):
                window = x[:, first : first + per_group, i : i + ky, j : j + kx]
                result[:, o, i, j] = (window * node.weight[o].astype(np.float64)).sum((1, 2, 3)) + node.bias[o]
    return result


def plain(shape: tuple[int, ...]) -> NeuronSpec:
    """One threshold for each channel, none like another."""
    theta = (0.75 + 0.25 * np.arange(shape[0])).reshape(-1, *[1] * (len(shape) - 1))
    threshold = np.broadcast_to(theta, shape).astype(np.float32)
    return NeuronSpec(threshold, threshold / np.float32(2))


def chain(*parts: Any, shape: tuple[int, ...]) -> SpikingNetwork:
    """`random_networks.sequential` with the thresholds of `plain`."""
    network = build.sequential(np.random.default_rng(7), shape, list(parts))
    return network.with_neurons({name: plain(spec.shape) for name, spec in network.neurons.items()})


def grouped() -> SpikingNetwork:
    rng = np.random.default_rng(2)
    first, second = build.conv2d(rng, 2, 4), build.conv2d(rng, 4, 6, groups=2)
    return chain(first, "if", second, "if", build.conv2d(rng, 6, 6, (1, 1), padding=0, groups=6), "if", shape=(2, 4, 4))


def pooled() -> SpikingNetwork:
    rng = np.random.default_rng(3)
    parts = [build.conv2d(rng, 1, 3), "if", build.pool(nir.AvgPool2d), build.pool(nir.SumPool2d), build.flatten()]
    return chain(*parts, build.affine(rng, 12, 5), "if", shape=(1, 8, 8))


def residual() -> SpikingNetwork:
    network = build.residual(np.random.default_rng(4))
    return network.with_neurons({name: plain(spec.shape) for name, spec in network.neurons.items()})


def flattened() -> SpikingNetwork:
    return chain(build.conv2d(np.random.default_rng(6), 2, 3), "if", shape=(2, 3, 4))


def one_axis() -> SpikingNetwork:
    rng = np.random.default_rng(8)
    return chain(build.conv1d(rng, 2, 4), "if", build.conv1d(rng, 4, 6, groups=2), "if", shape=(2, 7))


NETWORKS = [grouped, pooled, residual, flattened, one_axis]


def own_thresholds(network: SpikingNetwork) -> dict[str, Any]:
    return {n: spec.threshold.reshape(len(spec.threshold), -1)[:, 0] for n, spec in network.neurons.items()}


@pytest.mark.parametrize("make", NETWORKS)
def test_the_reference_is_the_network(make: Any) -> None:
    network = make()
    images = build.images(network, 5)
    expected = reference(network, images, own_thresholds(network), dict.fromkeys(network.layers, 0.0))
    np.testing.assert_allclose(ann_logits(network, images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("per_channel", [True, False])
def test_only_the_clipping_changes_with_the_thresholds(make: Any, per_channel: bool) -> None:
    network = make()
    images, rng = build.images(network, 5), np.random.default_rng(1)
    new: dict[str, Any] = {
        name: rng.uniform(0.3, 3, spec.shape[0]).astype(np.float32) if per_channel else 1.7
        for name, spec in network.neurons.items()
    }
    actual = with_thresholds(network, new)
    expected = reference(network, images, new, dict.fromkeys(network.layers, 0.0))
    np.testing.assert_allclose(ann_logits(actual, images), expected, rtol=1e-4, atol=1e-4)
    before = reference(network, images, own_thresholds(network), dict.fromkeys(network.layers, 0.0))
    assert np.abs(expected - before).max() > 1e-2, "the new thresholds clip elsewhere"
    for name, spec in actual.neurons.items():
        np.testing.assert_allclose(spec.v_init / spec.threshold, 0.5, rtol=1e-6)
        assert np.array_equal(actual.graph.nodes[name].v_threshold, spec.threshold)


@pytest.mark.parametrize("make", NETWORKS)
def test_powers_of_two_and_back_are_the_network_bit_for_bit(make: Any) -> None:
    network = make()
    doubled = with_thresholds(network, {name: theta * 2 for name, theta in own_thresholds(network).items()})
    back = with_thresholds(doubled, own_thresholds(network))
    for name, node in network.graph.nodes.items():
        for field in ("weight", "bias", "scale"):
            if hasattr(node, field):
                assert np.array_equal(getattr(node, field), getattr(back.graph.nodes[name], field)), name
    for name in network.layers:
        assert np.array_equal(back.neurons[name].v_init, network.neurons[name].v_init)
        assert np.array_equal(back.neurons[name].threshold, network.neurons[name].threshold)


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_current_reaches_every_neuron_of_a_channel(make: Any, per_channel: bool) -> None:
    network = make()
    images, rng = build.images(network, 5), np.random.default_rng(1)
    added: dict[str, Any] = {
        name: rng.normal(size=spec.shape[0]) if per_channel else 0.4 for name, spec in network.neurons.items()
    }
    actual = with_current_bias(network, added)
    expected = reference(network, images, own_thresholds(network), added)
    np.testing.assert_allclose(ann_logits(actual, images), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected - ann_logits(network, images)).max() > 1e-2
    biased = [n for n, node in actual.graph.nodes.items() if node is not network.graph.nodes[n]]
    assert len(biased) == len(network.layers), "one synapse for each layer"


def test_a_bias_in_the_synapse_is_the_same_bias_at_every_step() -> None:
    network, steps = two_layers(seed=3), 4
    images = build.images(network, 6)
    added: dict[str, Any] = {"first": [0.25, -0.5, 0.125], "second": np.arange(6) / 8}
    folded = with_current_bias(network, added)
    stepwise = network.with_neurons(
        {
            name: replace(spec, bias=np.tile(np.asarray(added[name], np.float32), (steps, 1)))
            for name, spec in network.neurons.items()
        }
    )
    one, other = simulate(folded, images, steps), simulate(stepwise, images, steps)
    for name in network.layers:
        assert np.array_equal(one.spikes[name], other.spikes[name])
    assert (one.spikes["second"] != simulate(network, images, steps).spikes["second"]).any()


def linear_chain(spec: NeuronSpec | None = None) -> SpikingNetwork:
    """Input (2, 3) -> Flatten -> Linear -> "one" (4,) -> Scale -> "two" (4,) -> Linear -> Output."""
    rng = np.random.default_rng(0)
    spec = spec or plain((4,))
    nodes = {
        "input": nir.Input(np.array([2, 3])),
        "flatten": build.flatten(),
        "linear": nir.Linear(build.dyadic(rng, 4, 6)),
        "one": build.spiking_node(spec),
        "scale": nir.Scale(build.dyadic(rng, 4)),
        "two": build.spiking_node(plain((4,))),
        "readout": nir.Linear(build.dyadic(rng, 3, 4)),
        "output": nir.Output(np.array([3])),
    }
    graph = nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False)
    return SpikingNetwork(graph, {"one": spec, "two": plain((4,))})


def test_a_linear_synapse_becomes_affine_and_scales_are_scaled(tmp_path: Any) -> None:
    network = linear_chain()
    actual = with_current_bias(network, {"one": [0.5, 0, -0.5, 1]})
    assert isinstance(actual.graph.nodes["linear"], nir.Affine)
    assert actual.graph.nodes["linear"].bias.tolist() == [0.5, 0, -0.5, 1]
    scaled = with_thresholds(actual, {"one": 2.0, "two": [1, 2, 3, 4]})
    images = build.images(network, 5)
    clip = {"one": 2.0, "two": [1, 2, 3, 4]}
    expected = reference(network, images, clip, {"one": [0.5, 0, -0.5, 1], "two": 0.0})
    np.testing.assert_allclose(ann_logits(scaled, images), expected, rtol=1e-5, atol=1e-5)
    write_nir(scaled, tmp_path / "model.nir")
    assert np.array_equal(ann_logits(read_nir(tmp_path / "model.nir"), images), ann_logits(scaled, images))


def test_the_bias_goes_through_a_flatten_where_it_is_exact() -> None:
    """A convolution, then a Flatten, then the layer: its features are the convolution's positions."""
    rng = np.random.default_rng(0)
    network = chain(build.conv2d(rng, 2, 3), build.flatten(), "if", shape=(2, 2, 2))
    by_channel = np.repeat([0.5, -0.25, 1.0], 4)
    actual = with_current_bias(network, {"if2": by_channel})
    before = network.graph.nodes["conv2d0"].bias
    assert np.array_equal(actual.graph.nodes["conv2d0"].bias, before + np.array([0.5, -0.25, 1], np.float32))
    with pytest.raises(NetworkError, match=r"'if2'.*'conv2d0' \(Conv2d\) has one bias for each channel"):
        with_current_bias(network, {"if2": np.arange(12)})


def test_everything_else_stays_and_the_given_network_too() -> None:
    network = replace(two_layers(seed=1), num_timesteps=3, method="half")
    kept = np.ones((2, 3), np.float32)
    spec = replace(network.neurons["first"], bias=kept, silent=np.zeros((3, 5, 5), np.bool_), levels=4)
    network = network.with_neurons({"first": spec})
    weight, head = network.graph.nodes["dense"].weight.copy(), network.graph.nodes["head"]
    actual = with_thresholds(network, {"first": 2.0})
    after = actual.neurons["first"]
    assert after.bias is kept and after.silent is spec.silent and after.levels == 4, "the current keeps its unit"
    assert actual.neurons["second"] is network.neurons["second"] and actual.graph.nodes["head"] is head
    assert (actual.num_timesteps, actual.method) == (3, "half")
    assert np.array_equal(network.graph.nodes["dense"].weight, weight) and network.neurons["first"] is spec
    hard = network.with_neurons({"first": replace(spec, reset="value", v_reset=np.full((3, 5, 5), -0.5, np.float32))})
    reset = with_thresholds(hard, {"first": 2.0}).neurons["first"].v_reset
    assert reset is not None and np.all(reset == -1)


def direct(*ways: tuple[str, str]) -> SpikingNetwork:
    """Two layers "a" and "b" of four neurons, fed by "in_a" and "in_b", and wired on by `ways`."""
    rng = np.random.default_rng(0)
    nodes = {
        "input": nir.Input(np.array([4])),
        "in_a": build.affine(rng, 4, 4),
        "a": build.spiking_node(layer((4,), 1.0)),
        "in_b": build.affine(rng, 4, 4),
        "b": build.spiking_node(layer((4,), 1.0)),
        "readout": build.affine(rng, 4, 4),
        "output": nir.Output(np.array([4])),
    }
    edges = [("input", "in_a"), ("in_a", "a"), ("in_b", "b"), *ways]
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    return SpikingNetwork(graph, {"a": layer((4,), 1.0), "b": layer((4,), 1.0)})


def test_spikes_without_a_weight_on_their_way_are_named() -> None:
    added = direct(("input", "in_b"), ("a", "readout"), ("b", "readout"), ("readout", "output"))
    with pytest.raises(NetworkError, match=r"'readout' \(Affine\) adds 'a' to other nodes"):
        with_thresholds(added, {"a": 2.0})
    out = direct(("a", "in_b"), ("b", "output"), ("readout", "output"), ("a", "readout"))
    with pytest.raises(NetworkError, match=r"'output' \(Output\) adds 'b'"):
        with_thresholds(out, {"b": 2.0})
    alone = direct(("a", "in_b"), ("b", "output"), ("a", "readout"), ("readout", "b"))
    with pytest.raises(NetworkError, match=r"'output' \(Output\) reads 'b' with no weight"):
        with_thresholds(alone, {"b": 2.0})
    into = direct(("input", "in_b"), ("a", "b"), ("b", "readout"), ("readout", "output"))
    with pytest.raises(NetworkError, match=r"'b' \(IF\) adds 'a'"):
        with_thresholds(into, {"a": 2.0})
    assert np.all(with_thresholds(into, {"b": 2.0}).neurons["b"].threshold == 2)


def test_neurons_of_a_channel_that_cannot_be_told_apart_are_named() -> None:
    network = pooled()
    uneven = plain((3, 8, 8))
    uneven.threshold[0, 1, 2] *= 2
    with pytest.raises(NetworkError, match=r"'avgpool2d2' \(AvgPool2d\) reads 'if1', and it has the same weights"):
        with_thresholds(network.with_neurons({"if1": uneven}), {"if1": 2.0})
    single = plain((3, 3, 4))
    single.threshold[0, 1, 2] *= 2
    assert with_thresholds(flattened().with_neurons({"if1": single}), {"if1": 2.0}), "dense weights tell all apart"


def test_layers_whose_bias_no_synapse_can_take_are_named() -> None:
    rng = np.random.default_rng(0)
    pool_first = chain(build.conv2d(rng, 2, 3), build.pool(nir.SumPool2d), "if", shape=(2, 4, 4))
    with pytest.raises(NetworkError, match=r"layer 'if2': 'sumpool2d1' \(SumPool2d\) is not a synapse with a bias"):
        with_current_bias(pool_first, {"if2": 1.0})
    with pytest.raises(NetworkError, match=r"layer 'two': 'scale' \(Scale\) is not a synapse with a bias"):
        with_current_bias(linear_chain(), {"two": 1.0})
    shared = direct(("input", "in_b"), ("in_a", "b"), ("a", "readout"), ("b", "readout"), ("readout", "output"))
    with pytest.raises(NetworkError, match=r"layer 'a': 'in_a' \(Affine\) feeds other nodes"):
        with_current_bias(shared, {"a": 1.0})
    actual = with_current_bias(shared, {"b": 1.0})
    assert actual.graph.nodes["in_a"] is shared.graph.nodes["in_a"], "the synapse of its own takes it"
    raw = chain("if", shape=(2, 4, 4))
    with pytest.raises(NetworkError, match=r"layer 'if0': 'input' \(Input\) is not a synapse with a bias"):
        with_current_bias(raw, {"if0": 1.0})


@pytest.mark.parametrize("change", [with_current_bias, with_thresholds])
def test_arrays_that_do_not_fit(change: Any) -> None:
    network = two_layers(seed=1)
    with pytest.raises(InputError, match=r"no layer 'third'\. The layers are 'first', 'second'"):
        change(network, {"third": 1.0})
    with pytest.raises(InputError, match=r"'first' must be one number or \(3,\), and has shape \(3, 5, 5\)"):
        change(network, {"first": np.ones((3, 5, 5))})
    with pytest.raises(InputError, match="'first' holds values that are not finite"):
        change(network, {"first": [1.0, np.nan, 1.0]})
    with pytest.raises(InputError, match="must be positive"):
        with_thresholds(network, {"first": [1.0, 0.0, 1.0]})
