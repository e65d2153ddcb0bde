from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import nir
import numpy as np
import pytest
from narrowing import of_type, present
from operation_reference import count_operations, taps
from random_networks import (
    IF,
    affine,
    conv1d,
    conv2d,
    flatten,
    images,
    neurons,
    pool,
    random_network,
    residual,
    sequential,
    spiking_node,
)
from torch import nn

import cos_export as ce
from cos_export.costing.counted_run import counted_run, counted_spikes
from cos_export.costing.fan_out import fan_out
from cos_export.errors import InputError
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.network.graph import output_shape
from cos_export.quantisation import quantise


def with_zeros(rng: np.random.Generator, node: Any) -> Any:
    """The node with some weights 0."""
    node.weight = node.weight * (rng.random(node.weight.shape) < 0.6)
    return node


def joined(rng: np.random.Generator) -> SpikingNetwork:
    """Two layers into one pooling node, a synapse and an identity into another, and a layer that is read out twice."""
    specs = {name: neurons(rng, (4, 6, 6)) for name in ("if1", "if2")} | {"if3": neurons(rng, (4, 3, 3))}
    nodes = {
        "input": nir.Input(np.array([2, 6, 6])),
        "conv1": conv2d(rng, 2, 4),
        "if1": spiking_node(specs["if1"]),
        "conv2": with_zeros(rng, conv2d(rng, 4, 4)),
        "if2": spiking_node(specs["if2"]),
        "pool": pool(nir.SumPool2d, 2),
        "conv3": conv2d(rng, 4, 4, groups=2),
        "scale": nir.Scale(rng.integers(0, 3, (4, 3, 3)).astype(np.float32)),
        "if3": spiking_node(specs["if3"]),
        "pool2": pool(nir.AvgPool2d, 3, padding=1),
        "flat2": flatten(),
        "flat1": flatten(),
        "head1": affine(rng, 36, 3),
        "head2": affine(rng, 4, 3),
        "output": nir.Output(np.array([3])),
    }
    edges = [("input", "conv1"), ("conv1", "if1"), ("if1", "conv2"), ("conv2", "if2"), ("if1", "pool"), ("if2", "pool")]
    edges += [("pool", "conv3"), ("pool", "scale"), ("conv3", "if3"), ("scale", "if3"), ("if3", "flat1")]
    edges += [("flat1", "head1"), ("head1", "output"), ("if3", "pool2"), ("pool2", "flat2"), ("flat2", "head2")]
    edges += [("head2", "output")]
    return SpikingNetwork(nir.NIRGraph(nodes, edges, type_check=False), specs, num_timesteps=4)


def dense(rng: np.random.Generator) -> SpikingNetwork:
    """A convolution that two layers read, each through a synapse of its own, one of them beside another convolution."""
    specs = {"if1": neurons(rng, (4, 5, 5)), "if2": neurons(rng, (8, 5, 5)), "if3": neurons(rng, (8, 5, 5))}
    nodes = {
        "input": nir.Input(np.array([2, 5, 5])),
        "conv1": conv2d(rng, 2, 4),
        "if1": spiking_node(specs["if1"]),
        "conv2": conv2d(rng, 4, 4),
        "place2": with_zeros(rng, conv2d(rng, 4, 8, (1, 1), padding=0, groups=4)),
        "if2": spiking_node(specs["if2"]),
        "conv3": conv2d(rng, 8, 4),
        "place3": with_zeros(rng, conv2d(rng, 4, 8, (1, 1), padding=0, groups=2)),
        "again": conv2d(rng, 4, 8, (1, 1), padding=0, groups=4),
        "if3": spiking_node(specs["if3"]),
        "flat": flatten(),
        "head": affine(rng, 200, 3),
        "output": nir.Output(np.array([3])),
    }
    edges = [*pairwise(["input", "conv1", "if1", "conv2", "place2", "if2", "conv3", "place3", "if3"])]
    edges += [("conv2", "again"), ("again", "if3"), *pairwise(["if3", "flat", "head", "output"])]
    return SpikingNetwork(nir.NIRGraph(nodes, edges, type_check=False), specs, num_timesteps=4)


def network_of(kind: str) -> SpikingNetwork:
    rng = np.random.default_rng(7)
    scale = nir.Scale(rng.integers(0, 3, (4, 5, 6)).astype(np.float32))
    layers: dict[str, list[Any]] = {
        "strides": [conv2d(rng, 2, 4, (3, 2), stride=(2, 1), padding=(1, 0)), IF, conv2d(rng, 4, 4, stride=2), IF],
        "dilation": [conv2d(rng, 2, 4, dilation=2, padding="same"), IF, conv2d(rng, 4, 2, dilation=(1, 2)), IF],
        "groups": [conv2d(rng, 2, 4), IF, with_zeros(rng, conv2d(rng, 4, 4, groups=4)), IF],
        "even kernel": [conv2d(rng, 2, 4, (2, 4), padding="same"), IF, conv2d(rng, 4, 4, (2, 2), padding="same"), IF],
        "pools": [
            conv2d(rng, 2, 4),
            IF,
            pool(nir.SumPool2d, 2),
            pool(nir.AvgPool2d, 3, stride=1, padding=1),
            conv2d(rng, 4, 4),
            IF,
        ],
        "pooled input": [pool(nir.SumPool2d, 2, stride=1), conv2d(rng, 2, 4), IF, conv2d(rng, 4, 4), IF],
        "bottleneck": [
            *(conv2d(rng, 2, 4), conv2d(rng, 4, 4), IF, with_zeros(rng, conv2d(rng, 4, 2, (1, 1), padding=0))),
            *(pool(nir.SumPool2d, 2), conv2d(rng, 2, 4), IF),
        ],
        "scale": [conv2d(rng, 2, 4), IF, scale, conv2d(rng, 4, 4), IF],
    }
    if kind == "one axis":
        return sequential(rng, (2, 9), [conv1d(rng, 2, 4, stride=2), IF, conv1d(rng, 4, 3, dilation=2), IF])
    if kind == "residual":
        return residual(rng)
    if kind == "joined":
        return joined(rng)
    if kind == "dense":
        return dense(rng)
    return sequential(rng, (2, 5, 6), layers[kind])


KINDS = ["strides", "dilation", "groups", "even kernel", "pools", "pooled input", "bottleneck", "scale", "one axis"]
KINDS += ["residual", "joined", "dense"]


def some_images(network: SpikingNetwork) -> Any:
    """Of which a third is 0."""
    array = images(network, 3)
    return array * (np.random.default_rng(1).random(array.shape) < 0.67).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fan_out_is_the_number_of_weights_that_a_place_meets(kind: str) -> None:
    network = network_of(kind)
    for name in network.order:
        node = network.graph.nodes[name]
        if isinstance(node, (nir.Input, nir.Output, nir.IF, nir.Flatten)):
            continue
        shape = network.shapes[network.predecessors[name][0]]
        expected = np.zeros(shape)
        for place, _, weight in taps(node, shape):
            expected[place] += weight != 0
        assert np.array_equal(fan_out(node, shape), expected)


def assert_counted(network: SpikingNetwork, steps: int, batch_size: int) -> None:
    array = some_images(network)
    trace = ce.simulate(network, array, steps)
    expected = count_operations(network, array, dict(trace.spikes))
    _, run = counted_run(network, array, steps, batch_size=batch_size, activity=True)
    kept = counted_spikes(network, array, trace.spikes, activity=True)
    for counted in (run, kept):
        actual, samples = counted.at(steps), len(array)
        by_node = {**expected.accumulates, **expected.multiplies, **expected.once}
        assert {name: value * samples for name, value in actual.by_node.items() if value} == pytest.approx(
            {name: value for name, value in by_node.items() if value}, rel=1e-12
        )
        assert actual.effective_acs * samples == pytest.approx(sum(expected.accumulates.values()))
        once, macs = sum(expected.once.values()), sum(expected.multiplies.values())
        assert actual.effective_macs * samples == pytest.approx(once + macs)
        assert actual.effective_macs_every_step * samples == pytest.approx(steps * once + macs)
        assert actual.pooling_additions * samples == pytest.approx(sum(expected.pooled.values()))
        assert actual.spikes * samples == pytest.approx(sum(int(array.sum()) for array in trace.spikes.values()))
        slots = sum(array.size for array in trace.spikes.values())
        assert actual.activation_sparsity == pytest.approx(1 - actual.spikes * samples / slots)
    assert ce.costs(network, array, steps).operations == run.at(steps)


@pytest.mark.parametrize("kind", KINDS)
def test_operations_are_those_of_a_count_one_by_one(kind: str) -> None:
    assert_counted(network_of(kind), 3, batch_size=2)


@pytest.mark.parametrize("seed", range(12))
def test_operations_of_random_networks_are_those_of_a_count_one_by_one(seed: int) -> None:
    assert_counted(random_network(seed), 2, batch_size=3)


@pytest.mark.parametrize("kind", ["pools", "joined", "dense", "bottleneck"])
def test_the_layerwise_schedule_computes_what_its_counts_ask_for(kind: str) -> None:
    network = replace(network_of(kind), schedule="layerwise")
    assert_counted(network, 3, batch_size=2)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_readout_of_fewer_steps_has_cost_what_a_shorter_run_costs(steps: int) -> None:
    network = network_of("joined")
    array = some_images(network)
    _, run = counted_run(network, array, 4)
    _, shorter = counted_run(network, array, steps)
    actual, expected = run.at(steps), shorter.at(steps)
    assert replace(actual, dense=0) == replace(expected, dense=0)


def test_the_layerwise_readout_of_fewer_steps_saves_its_own_synapses_alone() -> None:
    network = replace(network_of("joined"), schedule="layerwise")
    _, run = counted_run(network, some_images(network), 4)
    whole, part = run.at(4), run.at(2)
    changed = {name for name, value in whole.by_node.items() if part.by_node[name] != value}
    assert changed and changed <= {"head1", "head2"}
    assert run.at(1).spikes < whole.spikes


def chain() -> SpikingNetwork:
    """One input of 1, weights of 1, thresholds of 1: every neuron fires at every step; 1 -> 2 -> 3 -> 2 outputs."""
    sizes = (1, 2, 3)
    nodes: dict[str, Any] = {"input": nir.Input(np.array([1]))}
    specs = {}
    for number, (source, target) in enumerate(pairwise((*sizes, 2))):
        nodes[f"fc{number}"] = nir.Affine(np.ones((target, source), np.float32), np.ones(target, np.float32))
        if number < 2:
            one = np.ones(target, np.float32)
            specs[f"if{number}"] = NeuronSpec(one, np.zeros_like(one))
            nodes[f"if{number}"] = spiking_node(specs[f"if{number}"])
    nodes["output"] = nir.Output(np.array([2]))
    return SpikingNetwork(nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False), specs)


def test_what_a_chain_costs_by_hand() -> None:
    actual = ce.costs(chain(), np.ones((5, 1), np.float32), 3)
    done = actual.operations
    assert done.spikes == 3 * 5
    assert done.by_node == {"fc0": 2, "fc1": 3 * 6, "fc2": 3 * 6}
    assert (done.effective_macs, done.effective_macs_every_step, done.effective_acs) == (2, 6, 36)
    assert done.dense == 3 * (2 + 6 + 6)
    # The constant current of two neurons, and the biases of three neurons and two outputs, at each step.
    assert done.bias_additions == 3 * (2 + 3 + 2)
    assert (done.neuron_updates, done.activation_sparsity, done.presimulation) == (15, 0.0, 0.0)
    assert actual.artificial.macs == actual.artificial.effective_macs == 14
    assert actual.artificial.activation_bits == 2
    assert actual.artificial.bit_operations == 2 * 8 * 8 + 12 * 8 * 2
    assert actual.artificial.spiking_bit_operations == 2 * 8 * 8 + 36 * 8
    assert actual.energy.picojoules == pytest.approx(4.6 * 2 + 0.9 * (36 + 21))
    assert actual.energy.picojoules_every_step == pytest.approx(4.6 * 6 + 0.9 * (36 + 21))
    assert actual.energy.memory_traffic == (4 + 8) * 38 + 4 * 2 + 8 * 15 + 12 * 21
    assert actual.artificial.picojoules == pytest.approx(4.6 * 14)
    assert actual.artificial.memory_traffic == 14 * 4 + 2 * 1 + 12 * 2 / 8 + 5 * 2 / 8
    about = actual.footprint
    assert (about.weights_float32, about.weights_int8, about.biases) == (4 * 14, 14, 4 * 7)
    assert (about.neurons, about.potentials, about.counts, about.presimulation) == (8 * 5, 4 * 7, 0, 0)
    assert ce.costs(replace(chain(), schedule="layerwise"), np.ones((1, 1), np.float32), 3).footprint.counts == 2


def test_an_input_that_is_held_for_some_steps_leaves_the_biases_behind() -> None:
    network, array = replace(chain(), input_steps=2), np.ones((2, 1), np.float32)
    assert ce.costs(network, array, 5).operations.bias_additions == 5 * (2 + 3 + 2)
    first = nir.Affine(np.ones((2, 1), np.float32), np.array([1, 0], np.float32))
    done = ce.costs(network.with_nodes({"fc0": first}), array, 5).operations
    assert done.bias_additions == 2 * 2 + 3 * 1 + 5 * (3 + 2)
    assert (done.effective_macs, done.effective_macs_every_step) == (2, 4)


def test_a_neuron_that_is_silent_sends_nothing() -> None:
    network = chain()
    spec = replace(network.neurons["if0"], silent=np.array([True, False]))
    done = ce.costs(network.with_neurons({"if0": spec}), np.ones((2, 1), np.float32), 3).operations
    assert done.by_node["fc1"] == 3 * 3


def test_shapes_that_taps_and_graphs_give_agree() -> None:
    node = conv2d(np.random.default_rng(0), 2, 4, (3, 2), stride=(2, 1), padding=(1, 0))
    places = {out for _, out, _ in taps(node, (2, 5, 6))}
    assert tuple(np.max(list(places), axis=0) + 1) == output_shape(node, (2, 5, 6))


def test_the_artificial_network_multiplies_what_is_not_zero() -> None:
    network = replace(network_of("pools"), schedule="layerwise")
    array, nodes = some_images(network), network.graph.nodes
    counts = {name: spikes.sum(0) for name, spikes in ce.simulate(network, array, 3).spikes.items()}
    conv1, _, pool1, pool2, conv2, _, _, readout = network.order[1:9]

    def through(node: Any, x: Any, shape: tuple[int, ...]) -> Any:
        out: Any = np.zeros((len(x), *shape))
        for place, target, weight in taps(node, x.shape[1:]):
            out[(slice(None), *target)] += x[(slice(None), *place)] * weight
        return out

    def products(node: Any, x: Any) -> int:
        return sum(int((x[(slice(None), *place)] != 0).sum()) for place, _, w in taps(node, x.shape[1:]) if w != 0)

    pooled = through(nodes[pool1], counts["if1"], network.shapes[pool1])
    pooled = through(nodes[pool2], pooled, network.shapes[pool2])
    expected = products(nodes[conv1], array) + products(nodes[conv2], pooled)
    expected += products(nodes[readout], counts["if5"].reshape(len(array), -1))
    actual = ce.costs(network, array, 3).artificial
    assert actual.effective_macs * len(array) == pytest.approx(expected)
    assert actual.macs == sum(
        sum(w != 0 for *_, w in taps(nodes[name], network.shapes[network.predecessors[name][0]]))
        for name in (conv1, conv2, readout)
    )


def test_integers_are_counted_as_they_run() -> None:
    network = quantise(
        ce.calibrate(network_of("strides"), some_images(network_of("strides")), "half", 4),
        np.abs(some_images(network_of("strides"))),
        steps=4,
    )
    array = some_images(network)
    actual = ce.costs(network, array, 4)
    trace = ce.simulate(network, array, 4)
    assert actual.operations.spikes * 3 == pytest.approx(sum(int(s.sum()) for s in trace.spikes.values()))
    assert actual.operations == counted_spikes(network, array, trace.spikes).at(4)
    assert actual.to_dict()["footprint"]["parameters"] == actual.footprint.parameters("int8")


def test_a_max_pooling_compares_and_multiplies_nothing() -> None:
    """Picking an entry hands a spike on, so the synapse behind accumulates; the artificial network only compares."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1), ce.QCFS(2), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(4, 3)).eval()
    array = np.random.default_rng(0).random((2, 1, 5, 5)).astype(np.float32)
    first = of_type(model[0], nn.Conv2d)
    nn.init.constant_(first.weight, 2.0)
    nn.init.zeros_(present(first.bias))  # With a random one near -1 nothing would fire.
    network = ce.capture(model, array)
    assert any("picked" in name and isinstance(node, nir.Conv2d) for name, node in network.graph.nodes.items())
    actual = ce.costs(network, array, 4)
    assert actual.artificial.macs == 25 + 4 * 3
    assert actual.operations.effective_macs == pytest.approx(np.count_nonzero(array) / 2)
    assert actual.operations.pooling_additions > 0


def test_a_network_of_a_per_sample_method_is_not_counted_without_it() -> None:
    """It would be called cos and cost what the static network costs."""
    network = replace(chain(), method="cos", rho=4)
    with pytest.raises(InputError, match="pass calibration="):
        ce.costs(network, np.ones((1, 1), np.float32), 3)
    with pytest.raises(InputError, match="pass calibration="):
        ce.layer_errors(network, np.ones((1, 1), np.float32), 3)
    assert ce.costs(network, np.ones((1, 1), np.float32), 3, ce.COS(4)).rho == 4


@pytest.mark.parametrize("classes", [2, 3])
def test_a_constant_current_is_added_once_to_each_neuron_that_takes_it(classes: int) -> None:
    """By hand: image -> 2 -> flattened -> 3 + image -> 3, into one layer of 3 neurons; the readout takes the image."""
    one = NeuronSpec(np.ones(3, np.float32), np.zeros(3, np.float32))
    nodes: dict[str, Any] = {
        "input": nir.Input(np.array([1, 1, 1])),
        "conv": nir.Conv2d(None, np.ones((2, 1, 1, 1), np.float32), 1, 0, 1, 1, np.ones(2, np.float32)),
        "flat1": flatten(),
        "fc": nir.Affine(np.ones((3, 2), np.float32), np.ones(3, np.float32)),
        "flat2": flatten(),
        "other": nir.Affine(np.ones((3, 1), np.float32), np.ones(3, np.float32)),
        "if": spiking_node(one),
        "head": nir.Affine(np.ones((classes, 3), np.float32), np.zeros(classes, np.float32)),
        "skip": nir.Affine(np.ones((classes, 1), np.float32), np.zeros(classes, np.float32)),
        "output": nir.Output(np.array([classes])),
    }
    edges = [
        ("input", "conv"),
        ("conv", "flat1"),
        ("flat1", "fc"),
        ("fc", "if"),
        ("input", "flat2"),
        ("flat2", "other"),
    ]
    edges += [("other", "if"), ("if", "head"), ("head", "output"), ("flat2", "skip"), ("skip", "output")]
    network = SpikingNetwork(nir.NIRGraph(nodes, edges, type_check=False), {"if": one})
    images = np.ones((2, 1, 1, 1), np.float32)
    assert ce.costs(network, images, 4).operations.bias_additions == 4 * (3 + classes)
    assert ce.costs(replace(network, input_steps=1), images, 4).operations.bias_additions == 3 + classes + 3 * 3
    # One layer alone: nothing is calibrated on what it fires, and the readout is not pre-simulated.
    paid = ce.costs(network, images, 2, ce.COS(4))
    assert paid.operations.bias_additions == (4 + 2) * 3 + 2 * classes
    assert (paid.operations.neuron_updates, paid.timing.interval) == ((4 + 2) * 3, 4 + 2)
    once, skip = 2 + 6 + 3, classes
    assert paid.operations.effective_macs == once + skip
    assert paid.operations.effective_macs_every_step == (4 + 2) * once + 2 * skip
