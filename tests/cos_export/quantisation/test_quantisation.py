from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from typing import Any

import nir
import numpy as np
import pytest
from eight_bit_networks import TOPOLOGIES, in_integers, topology, with_node
from narrowing import present
from random_networks import (
    IF,
    affine,
    conv2d,
    flatten,
    neurons,
    pool,
    random_network,
    residual,
    sequential,
    spiking_node,
)
from random_networks import images as dyadic_images

from cos_export.errors import InputError, NetworkError
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.quantisation import check_ranges, quantise
from cos_export.quantisation.groups import fold_averages, groups, with_carriers
from cos_export.quantisation.scales import LARGEST_THRESHOLD
from cos_export.quantisation.splitting import split
from cos_export.simulation import ann_logits, simulate


def trained(seed: int, *, channels: Any = None) -> SpikingNetwork:
    """Numbers as a trained network has them: (2, 6, 6) -> conv -> a -> {conv, shortcut} -> b -> pool -> 3 classes."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> Any:
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    theta = np.full((4, 6, 6), 0.7, np.float32)
    if channels is not None:
        theta = np.broadcast_to(np.asarray(channels, np.float32)[:, None, None], (4, 6, 6)).copy()
    nodes: dict[str, Any] = {
        "input": nir.Input(np.array([2, 6, 6])),
        "conv": nir.Conv2d((6, 6), weights(4, 2, 3, 3), 1, 1, 1, 1, weights(4) / 4),
        "a": nir.IF(np.ones_like(theta), theta),
        "next": nir.Conv2d((6, 6), weights(4, 4, 3, 3), 1, 1, 1, 1, weights(4) / 4),
        "shortcut": nir.Conv2d((6, 6), 0.7 * np.eye(4, dtype=np.float32)[:, :, None, None], 1, 0, 1, 1, np.zeros(4)),
        "b": nir.IF(np.ones_like(theta), theta),
        "pool": pool(nir.SumPool2d, 2),
        "flat": flatten(),
        "head": nir.Affine(weights(3, 36), weights(3) / 4),
        "output": nir.Output(np.array([3])),
    }
    edges = [("input", "conv"), ("conv", "a"), ("a", "next"), ("a", "shortcut"), ("next", "b"), ("shortcut", "b")]
    edges += list(pairwise(["b", "pool", "flat", "head", "output"]))
    specs = {name: NeuronSpec(theta, theta / np.float32(2), levels=8) for name in ("a", "b")}
    return SpikingNetwork(nir.NIRGraph(nodes, edges, type_check=False), specs, num_timesteps=4)


def whole(network: SpikingNetwork, name: str) -> Any:
    """A node with the weights of all nodes that it was split into, added up."""
    parts = [node for other, node in network.graph.nodes.items() if other.rsplit("_", 1)[0] == name or other == name]
    assert all(np.abs(part.weight).max() <= 128 for part in parts)
    result = copy.copy(parts[0])
    result.weight, result.bias = (sum(getattr(part, field) for part in parts) for field in ("weight", "bias"))
    return result


def pictures(count: int = 24, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(count, 2, 6, 6)).astype(np.float32)


@pytest.mark.parametrize("options", [{}, {"per_channel": True}, {"power_of_two": True}, {"even_weights": True}])
def test_integers_stand_for_what_the_network_was(options: dict[str, bool]) -> None:
    """Times their scales they are the trained numbers: the integers beside them where nothing was clipped."""
    network = trained(0)
    actual = quantise(network, pictures(), **options)  # type: ignore[arg-type]
    coding = actual.quantisation
    assert coding is not None and (actual.numerics, coding.input_minimum, coding.input_maximum) == ("int8", -127, 127)
    feeds = {"conv": (coding.input_scale, "a"), "next": (1.0, "b"), "shortcut": (1.0, "b"), "head": (1.0, "output")}
    step = 2.0 if options.get("even_weights") else 1.0
    for name, (input_scale, layer) in feeds.items():
        before, after = network.graph.nodes[name], whole(actual, name)
        scale: Any = np.full(len(after.weight), coding.readout_scale)
        if layer in actual.neurons:
            scale = present(actual.neurons[layer].scale)
        column = scale.reshape(-1, *[1] * (after.weight.ndim - 1)) / input_scale
        off = np.abs(after.weight - before.weight / column)
        inside = (after.weight > -128) & (after.weight < (126 if options.get("even_weights") else 127))
        assert off[inside].max() < step + 1e-6 and inside.mean() > 0.7
        if name == "shortcut":
            assert off.max() <= step / 2 + 1e-6
            np.testing.assert_array_equal(after.bias, 0)
        # The bias makes up for the mean error of at most a step for each weight, whose inputs are 1 at most, or 127.
        reach = step * np.abs(after.weight[0]).size * (1.0 if input_scale == 1.0 else 127.0)
        assert np.abs(after.bias - before.bias / scale).max() <= 0.5 + reach
    for name, spec in actual.neurons.items():
        was = network.neurons[name]
        # No threshold is rounded: it is the scale that makes it an integer.
        scale = present(spec.scale)
        np.testing.assert_allclose(spec.threshold * scale[:, None, None], was.threshold, rtol=1e-12)
        assert np.abs(spec.v_init * scale[:, None, None] - was.v_init).max() <= scale.max() / 2 + 1e-9
        np.testing.assert_array_equal(actual.graph.nodes[name].v_threshold, spec.threshold)
        # Where a shortcut arrives all channels have one.
        assert len(set(scale)) == (4 if options.get("per_channel") and name == "a" else 1)
        if options.get("power_of_two"):
            assert (np.log2(spec.threshold) % 1 == 0).all()
    if options.get("even_weights"):
        assert all((actual.graph.nodes[name].weight % 2 == 0).all() for name in feeds)
    if options.get("power_of_two"):
        assert np.log2(coding.input_scale) % 1 == np.log2(coding.readout_scale) % 1 == 0
    # The whole network still says the same.
    images = pictures(40, seed=1)
    expected, got = simulate(network, images, 8).logits[-1], simulate(actual, images, 8).logits[-1]
    spread = expected.std()
    assert np.abs(got - expected).mean() < (0.3 if options.get("even_weights") else 0.15) * spread
    assert np.abs(ann_logits(actual, images) - ann_logits(network, images)).mean() < 0.15 * spread


def test_one_neuron_by_hand() -> None:
    """Theta 1, weights 1/2 and -1/4: with a scale of 1/256 the largest weight would be 128, so 1/254 is the widest."""
    spec = NeuronSpec(np.ones(1, np.float32), np.full(1, 0.25, np.float32))
    nodes = {
        "input": nir.Input(np.array([2])),
        "synapse": nir.Affine(np.array([[0.5, -0.25]], np.float32), np.array([0.1], np.float32)),
        "neuron": spiking_node(spec),
        "head": nir.Affine(np.array([[2.0], [-1.0]], np.float32), np.array([0.5, 0.0], np.float32)),
        "output": nir.Output(np.array([2])),
    }
    graph = nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False)
    images = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    actual = quantise(SpikingNetwork(graph, {"neuron": spec}), images, power_of_two=True)
    coding = actual.quantisation
    # 0..255 from images of 0..1, in a power of two: 1/128. 0.5 / 128 in units of 2^-k / ... as an integer of 8 bits.
    assert coding is not None and coding.input_scale == 1 / 128 and coding.input_minimum == 0
    theta = actual.neurons["neuron"].threshold[0]
    weight = actual.graph.nodes["synapse"].weight[0]
    assert theta in (2.0**14, 2.0**13)
    np.testing.assert_array_equal(weight, np.array([0.5, -0.25]) / 128 * theta)
    assert actual.graph.nodes["synapse"].bias[0] == round(0.1 * theta)
    assert actual.neurons["neuron"].v_init[0] == 0.25 * theta + 0.5
    assert coding.readout_scale in (1 / 64, 1 / 32)
    np.testing.assert_array_equal(actual.graph.nodes["head"].weight[:, 0] * coding.readout_scale, [2.0, -1.0])


def _squared_error(weight: Any, bias: Any, scale: Any, x: Any) -> Any:
    """Of each channel, by sample: what rounding changes in W x + b, written out."""
    whole = np.clip(np.rint(weight / scale), -128, 127) * scale
    return ((x @ (whole - weight).T + (np.rint(bias / scale[:, 0]) * scale[:, 0] - bias)) ** 2).mean(0)


@pytest.mark.parametrize("per_channel", [False, True])
def test_no_other_threshold_gives_a_smaller_error(per_channel: bool) -> None:
    rng = np.random.default_rng(0)
    weight = (rng.standard_t(3, size=(5, 30)) / 8).astype(np.float32)
    bias = rng.normal(size=5).astype(np.float32)
    spec = NeuronSpec(np.array([1.0, 1.0, 1.0, 1.0, 1.0], np.float32), np.full(5, 0.5, np.float32))
    head = affine(rng, 5, 3)
    nodes = {
        "input": nir.Input(np.array([30])),
        "first": nir.Affine(np.eye(30, dtype=np.float32), np.zeros(30, np.float32)),
        "hidden": spiking_node(NeuronSpec(np.ones(30, np.float32), np.full(30, 0.5, np.float32))),
        "synapse": nir.Affine(weight, bias),
        "neuron": spiking_node(spec),
        "head": head,
        "output": nir.Output(np.array([3])),
    }
    specs = {"hidden": NeuronSpec(np.ones(30, np.float32), np.full(30, 0.5, np.float32)), "neuron": spec}
    network = SpikingNetwork(nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False), specs)
    images = rng.random((50, 30)).astype(np.float32)
    actual = quantise(network, images, per_channel=per_channel)
    # What arrives are activations of the first layer: the images, which the identity hands on.
    errors = {}
    for n in range(1, 4000):
        off = _squared_error(weight.astype(float), bias.astype(float), np.full((5, 1), 1.0 / n), images.astype(float))
        errors[n] = off
    chosen = actual.neurons["neuron"].threshold.astype(int)
    if per_channel:
        for channel, n in enumerate(chosen):
            smooth = min(np.mean([errors[m][channel] for m in range(k, k + 15)]) for k in range(1, 3980))
            assert errors[n][channel] <= 1.2 * smooth
    else:
        assert len(set(chosen)) == 1
        # Errors of neighbouring n differ by chance; the choice is as good as the best region of them.
        smooth = min(np.mean([errors[m].sum() for m in range(k, k + 15)]) for k in range(1, 3980))
        assert errors[chosen[0]].sum() <= 1.1 * smooth


def test_channels_with_thresholds_of_their_own_keep_them_exactly() -> None:
    thresholds = [0.31, 0.7, 1.1, 0.9]
    actual = quantise(trained(1, channels=thresholds), pictures())
    for spec in actual.neurons.values():
        scale = present(spec.scale)
        np.testing.assert_allclose(spec.threshold[:, 0, 0] * scale, np.array(thresholds, np.float32), rtol=1e-12)
        # One scale for the layer, but for what makes each threshold an integer.
        assert scale.max() / scale.min() < 1 + 2 / spec.threshold.min()


def test_thresholds_within_a_channel_are_rounded() -> None:
    network = trained(2)
    rng = np.random.default_rng(0)
    theta = rng.uniform(0.5, 1.0, (4, 6, 6)).astype(np.float32)
    network = network.with_neurons({"a": replace(network.neurons["a"], threshold=theta)})
    spec = quantise(network, pictures(), per_channel=True).neurons["a"]
    [scale] = set(present(spec.scale))
    assert np.abs(spec.threshold * scale - theta).max() <= scale / 2 + 1e-9


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_topology_of_the_tests_becomes_integers(name: str) -> None:
    network = topology(name)
    actual = quantise(network, dyadic_images(network, 8))
    check_ranges(actual, 4)
    assert actual.output_shape == network.output_shape and set(actual.neurons) == set(network.neurons)


@pytest.mark.parametrize("seed", range(30, 50))
def test_random_networks_become_integers(seed: int) -> None:
    network = random_network(seed)
    actual = quantise(network, dyadic_images(network, 8))
    check_ranges(actual, 4)
    assert not any(isinstance(node, nir.AvgPool2d) for node in actual.graph.nodes.values())


def test_an_average_becomes_a_sum_and_gives_its_factor_to_the_synapses_behind_it() -> None:
    rng = np.random.default_rng(0)
    network = sequential(rng, (2, 6, 6), [conv2d(rng, 2, 3), IF, pool(nir.AvgPool2d, 2), conv2d(rng, 3, 4), IF])
    folded = fold_averages(network)
    assert isinstance(folded.graph.nodes["avgpool2d2"], nir.SumPool2d)
    np.testing.assert_array_equal(folded.graph.nodes["conv2d3"].weight, network.graph.nodes["conv2d3"].weight / 4)
    images = dyadic_images(network, 3)
    np.testing.assert_array_equal(simulate(folded, images, 3).logits, simulate(network, images, 3).logits)


def test_averages_that_no_synapse_can_take_over_are_refused_by_node() -> None:
    rng = np.random.default_rng(0)
    network = sequential(rng, (2, 6, 6), [conv2d(rng, 2, 3), pool(nir.AvgPool2d, 2), IF])
    with pytest.raises(NetworkError, match=r"Node 'avgpool2d1' \(AvgPool2d\) feeds 'if2'"):
        quantise(network, dyadic_images(network, 3))


def _bare_residual() -> SpikingNetwork:
    """Spikes, and the input itself, are added to currents without a synapse; the input alone feeds one layer."""
    rng = np.random.default_rng(4)
    shape = (3, 4, 4)
    specs = {name: neurons(rng, shape) for name in ("first", "second")}
    nodes = {
        "input": nir.Input(np.array(shape)),
        "conv": conv2d(rng, 3, 3),
        "flat": flatten(),
        "head": affine(rng, 48, 3),
        "output": nir.Output(np.array([3])),
        **{name: spiking_node(spec) for name, spec in specs.items()},
    }
    edges = [("input", "first"), ("first", "conv"), ("conv", "second"), ("first", "second"), ("input", "second")]
    edges += list(pairwise(["second", "flat", "head", "output"]))
    return SpikingNetwork(nir.NIRGraph(nodes, edges, type_check=False), specs)


def test_what_is_added_without_a_synapse_gets_one() -> None:
    network = _bare_residual()
    carried = with_carriers(network)
    added = set(carried.graph.nodes) - set(network.graph.nodes)
    assert added == {"input_to_first", "first_to_second", "input_to_second"}
    images = dyadic_images(network, 4)
    before, after = simulate(network, images, 4), simulate(carried, images, 4)
    np.testing.assert_array_equal(after.logits, before.logits)
    for group in groups(carried):
        assert bool(group.producers) != bool(group.edges)
    actual = quantise(network, images)
    check_ranges(actual, 4)
    spec = actual.neurons["second"]
    weight = whole(actual, "first_to_second").weight[:, :, 0, 0]
    np.testing.assert_array_equal(weight, np.diag(np.rint(1 / present(spec.scale))))


@pytest.mark.parametrize("even", [False, True])
def test_a_weight_beyond_8_bits_becomes_several(even: bool) -> None:
    weights = np.array([[-1000.0, 0, 0], [0, 506.0, 0], [0, 0, 2.0]], np.float32)
    parts = split(nir.Affine(weights, np.array([3.0, -4.0, 0.0], np.float32)), bits=8, even=even)
    assert len(parts) == 8
    np.testing.assert_array_equal(sum(part.weight for part in parts), weights)
    np.testing.assert_array_equal(sum(part.bias for part in parts), [3, -4, 0])
    for part in parts:
        assert part.weight.min() >= -128 and part.weight.max() <= 127
        assert not even or (part.weight % 2 == 0).all()
    assert len(split(nir.Scale(np.array([126.0, -90.0], np.float32)), bits=8, even=even)) == 1


def test_an_identity_beside_small_weights_leaves_them_their_bits() -> None:
    network = trained(0)
    small = with_node(network, "next", weight=network.graph.nodes["next"].weight / 10)
    actual = quantise(small, pictures())
    assert np.abs(actual.graph.nodes["next"].weight).max() > 100
    identity = np.diag(whole(actual, "shortcut").weight[:, :, 0, 0])
    np.testing.assert_array_equal(identity, np.rint(np.float32(0.7) / present(actual.neurons["b"].scale)))
    # The reference still counts as the network itself says.
    check_ranges(actual, 4)
    assert sum(name.startswith("shortcut") for name in actual.graph.nodes) > 1


def test_units_by_channel_take_no_more_nodes_for_a_shortcut() -> None:
    rng = np.random.default_rng(0)
    small = with_node(trained(0), "next", weight=trained(0).graph.nodes["next"].weight * rng.random((4, 1, 1, 1)) / 10)
    one, several = (quantise(small, pictures(), per_channel=choice) for choice in (False, True))
    parts = [name for name in several.graph.nodes if name.startswith("shortcut")]
    assert set(several.graph.nodes) == set(one.graph.nodes) and len(parts) > 1
    for part in parts:
        weight = several.graph.nodes[part].weight[:, :, 0, 0]
        np.testing.assert_array_equal(weight, weight[0, 0] * np.eye(4))


def test_two_synapses_in_a_row() -> None:
    rng = np.random.default_rng(0)
    network = sequential(rng, (6,), [affine(rng, 6, 40), IF, affine(rng, 40, 30), affine(rng, 30, 7), IF])
    images = dyadic_images(network, 20)
    actual = quantise(network, images)
    check_ranges(actual, 4)
    first, second = (actual.graph.nodes[name].weight.astype(int) for name in ("affine2", "affine3"))
    before = network.graph.nodes["affine3"].weight @ network.graph.nodes["affine2"].weight
    after = second @ first * present(actual.neurons["if4"].scale)[:, None]
    assert np.abs(after - before).mean() < 0.02 * np.abs(before).mean()


def test_the_first_of_two_synapses_gets_fewer_bits_where_they_do_not_fit() -> None:
    rng = np.random.default_rng(0)
    network = sequential(rng, (6,), [affine(rng, 6, 120), IF, affine(rng, 120, 70), affine(rng, 70, 7), IF])
    actual = quantise(network, dyadic_images(network, 20))
    check_ranges(actual, 4)
    assert np.abs(actual.graph.nodes["affine2"].weight).max() < 64 < np.abs(actual.graph.nodes["affine3"].weight).max()
    wide = sequential(rng, (6,), [affine(rng, 6, 400), IF, affine(rng, 400, 300), affine(rng, 300, 7), IF])
    actual = quantise(wide, dyadic_images(wide, 4))
    check_ranges(actual, 4)
    assert np.abs(actual.graph.nodes["affine3"].weight).max() < 64, "there the second gets fewer as well"
    with pytest.raises(NetworkError, match=r"Layer 'if4': within 10000 steps its potential may reach .* fit"):
        quantise(wide, dyadic_images(wide, 4), steps=10_000)


def test_a_sum_of_a_synapse_and_its_own_input_is_refused_by_node() -> None:
    rng = np.random.default_rng(0)
    network = sequential(rng, (6,), [affine(rng, 6, 9), affine(rng, 9, 9), IF])
    edges = [*network.graph.edges, ("affine0", "if2")]
    network = replace(network, graph=nir.NIRGraph(dict(network.graph.nodes), edges, type_check=False))
    with pytest.raises(NetworkError, match="Node 'affine1': what it gives is added to what it takes"):
        quantise(network, dyadic_images(network, 3))


def test_layers_that_share_one_current_share_one_unit() -> None:
    """What comes before an activation goes on beside it, as in networks that normalise first."""
    rng = np.random.default_rng(0)
    network = sequential(rng, (6,), [affine(rng, 6, 5), IF, affine(rng, 5, 5), IF])
    edges = [*network.graph.edges, ("affine0", "if3")]
    network = replace(network, graph=nir.NIRGraph(dict(network.graph.nodes), edges, type_check=False))
    actual = quantise(network, dyadic_images(network, 5))
    assert set(present(actual.neurons["if1"].scale)) == set(present(actual.neurons["if3"].scale))


def test_a_layer_of_zeros_and_images_of_zeros() -> None:
    network = trained(0)
    network = with_node(network, "next", weight=np.zeros((4, 4, 3, 3), np.float32), bias=np.zeros(4, np.float32))
    network = with_node(network, "shortcut", weight=np.zeros((4, 4, 1, 1), np.float32))
    actual = quantise(network, np.zeros((2, 2, 6, 6), np.float32))
    assert (actual.neurons["b"].threshold <= LARGEST_THRESHOLD).all()
    assert not simulate(actual, pictures(), 4).spikes["b"].any()


def test_what_cannot_be_quantised_is_refused() -> None:
    network = trained(0)
    with pytest.raises(InputError, match="one of integers already"):
        quantise(in_integers(residual(np.random.default_rng(0)), 0), pictures())
    with pytest.raises(InputError, match=r"images of shape \(samples, 2, 6, 6\)"):
        quantise(network, np.zeros((1, 3, 6, 6)))
    with pytest.raises(InputError, match="samples must be at least 1"):
        quantise(network, pictures(), samples=0)
    loud = with_node(network, "conv", bias=np.full(4, 1e9, np.float32))
    with pytest.raises(NetworkError, match="Node 'conv': its sums may reach"):
        quantise(loud, pictures())


def test_wide_synapses_in_a_row_get_as_many_bits_as_the_ranges_leave() -> None:
    """A linear bottleneck too wide for 8 bits behind it: coarser weights on both sides, and every sum is exact."""
    rng = np.random.default_rng(4)

    def dense(outputs: int, inputs: int) -> Any:
        weight = rng.choice([-1.0, 1.0], (outputs, inputs)) * rng.uniform(0.9, 1.0, (outputs, inputs)) / inputs**0.5
        return nir.Affine(np.float32(weight), np.zeros(outputs, np.float32))

    def layer(count: int) -> Any:
        return nir.IF(np.ones(count, np.float32), np.ones(count, np.float32))

    nodes = {"input": nir.Input(np.array([8])), "first": dense(320, 8), "a": layer(320), "down": dense(320, 320)}
    nodes |= {"up": dense(16, 320), "b": layer(16), "head": dense(3, 16), "output": nir.Output(np.array([3]))}
    specs = {name: NeuronSpec(nodes[name].v_threshold, nodes[name].v_threshold / 2, levels=8) for name in ("a", "b")}
    network = SpikingNetwork(nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False), specs)
    images = rng.random((24, 8)).astype(np.float32)
    whole = quantise(network, images, steps=2)
    assert check_ranges(whole, 2)[1].largest_sum < 2**24
    assert 3 * 320 * 127 * 320 > 2**24, "what 8 bits behind the bottleneck could reach"
    assert np.abs(whole.graph.nodes["up"].weight).max() < 127
    close = (
        simulate(whole, images, 4).logits[-1].argmax(1) == simulate(network, images, 4).logits[-1].argmax(1)
    ).mean()
    assert close > 0.7
