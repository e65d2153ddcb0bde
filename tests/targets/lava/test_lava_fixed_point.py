"""Networks of integers in Lava against PyTorch where nothing saturates, and Python's own integers where it does."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_networks import in_fixed_point, integer_images
from random_networks import IF, affine, conv2d, neurons, pool, random_network, residual, sequential

from cos_export.errors import NetworkError, TargetError
from cos_export.network import NeuronSpec, SampleStates
from cos_export.simulation import simulate
from cos_export.simulation.fixed_point import LARGEST_POTENTIAL
from cos_export.simulation.trace import Trace
from targets.lava import LavaTarget, run_network
from targets.lava.fixed_point import in_integers
from targets.lava.lowered_node import LoweredNode
from targets.lava.lowering import lower

BACKENDS = ("batched", "faithful")


def _assert_same(actual: Trace, expected: Trace) -> None:
    for name, spikes in expected.spikes.items():
        np.testing.assert_array_equal(actual.spikes[name], spikes, err_msg=name)
    np.testing.assert_array_equal(actual.logits, expected.logits)


@pytest.mark.usefixtures("lava_environment")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [residual, "pooled"], ids=["residual", "pooled"])
def test_every_spike_and_logit_is_that_of_the_reference(backend: Any, make: Any) -> None:
    rng = np.random.default_rng(3)
    if make == "pooled":
        layers = [conv2d(rng, 2, 4), IF, pool(nir.SumPool2d), conv2d(rng, 4, 4, groups=2), IF]
        network = in_fixed_point(sequential(rng, (2, 6, 6), layers, bias_steps=2, silenced=True), 4)
    else:
        network = in_fixed_point(make(rng, condition=">"), 5)
    batch = integer_images(network, 3)
    expected = simulate(network, batch, 4, device="cpu")
    for name, spikes in expected.spikes.items():
        assert 0.02 < spikes.mean() < 0.98, f"{name} would prove nothing"
    _assert_same(run_network(network, batch, 4, options=LavaTarget(backend, batch_size=2)), expected)


@pytest.mark.usefixtures("lava_environment")
@pytest.mark.parametrize("seed", range(3))
def test_random_networks_of_integers(seed: int) -> None:
    network = in_fixed_point(random_network(200 + 3 * seed), seed)
    if any(isinstance(node, nir.AvgPool2d) for node in network.graph.nodes.values()):
        pytest.fail("choose a seed whose network does not average")
    batch = integer_images(network, 5)
    _assert_same(
        run_network(network, batch, 5, options=LavaTarget(batch_size=2, cores=3)),
        simulate(network, batch, 5, device="cpu"),
    )


@pytest.mark.usefixtures("lava_environment")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_potential_stops_at_24_bits(backend: Any) -> None:
    """Potentials that would pass both ends, and then fire at other steps; against integers of any size, one by one."""
    rng = np.random.default_rng(0)
    network = in_fixed_point(sequential(rng, (2,), [affine(rng, 2, 3), IF]), 0)
    node = next(node for node in network.graph.nodes.values() if isinstance(node, nir.Affine))
    node.weight = np.array([[127, 0], [0, 127], [3, 1]], np.float32)
    node.bias = np.array([4_000_001, -4_000_001, 5], np.float32)
    thetas, starts = [8_000_000, 7, 9], [8_388_606.5, -8_388_604.5, 3.5]
    betas = [[17, -17, 0], [17, -17, 0], [17, 8_388_000, 0], [17, 8_388_000, 0]]
    spec = NeuronSpec(np.array(thetas, np.float32), np.array(starts, np.float32), bias=np.array(betas, np.float32))
    network = network.with_neurons(dict.fromkeys(network.neurons, spec))
    batch = np.array([[8, -8], [1, 0]], np.float32)
    actual = run_network(network, batch, 4, options=LavaTarget(backend)).spikes[network.layers[0]]
    stopped = 0
    for sample, image in enumerate(batch.astype(int).tolist()):
        for place in range(3):
            potential = int(np.floor(starts[place]))
            for t in range(4):
                products = [int(w) * x for w, x in zip(node.weight[place], image, strict=True)]
                charged = potential + sum(products) + int(node.bias[place]) + betas[t][place]
                stopped += abs(charged) > LARGEST_POTENTIAL
                charged = max(-LARGEST_POTENTIAL, min(LARGEST_POTENTIAL, charged))
                assert actual[t, sample, place] == (charged >= thetas[place]), (t, sample, place)
                potential = charged - thetas[place] * (charged >= thetas[place])
    assert stopped >= 8, "nothing was to stop"
    assert actual[3, 0, 1], "from further below it would not have come back"


@pytest.mark.usefixtures("lava_environment")
def test_sums_that_float32_cannot_hold_are_exact_in_the_batched_back_end_and_refused_by_the_faithful_one() -> None:
    """Sums near 2^27 whose last bits decide, each one more or less than the threshold at a first step."""
    rng = np.random.default_rng(0)
    network = in_fixed_point(sequential(rng, (2,), [affine(rng, 2, 4), IF]), 0)
    name = next(name for name, node in network.graph.nodes.items() if isinstance(node, nir.Affine))
    node = network.graph.nodes[name]
    large = 16_777_213.0
    node.weight = np.array([[large, -large]] * 4, np.float32)
    node.bias = np.array([0, 1, 2, 3], np.float32)
    spec = NeuronSpec(np.full(4, 10, np.float32), np.full(4, 0.5, np.float32))
    network = network.with_neurons(dict.fromkeys(network.neurons, spec))
    batch = np.array([[8, 8]], np.float32)
    actual = run_network(network, batch, 6).spikes[network.layers[0]][:, 0]
    total = np.arange(1, 7)[:, None] * np.arange(4)
    np.testing.assert_array_equal(actual, np.diff(total // 10, axis=0, prepend=0) > 0)
    with pytest.raises(TargetError, match=rf'Node {name!r}: its sums may reach \d+, and Lava.*"batched" back end'):
        run_network(network, batch, 1, options=LavaTarget("faithful"))


@pytest.mark.usefixtures("lava_environment")
def test_sums_beyond_32_bits_and_weights_beyond_8_are_refused_by_name() -> None:
    rng = np.random.default_rng(0)
    network = in_fixed_point(sequential(rng, (2,), [affine(rng, 2, 4), IF]), 0)
    name = next(name for name, node in network.graph.nodes.items() if isinstance(node, nir.Affine))
    network.graph.nodes[name].weight[0, 0] = 128
    batch = np.array([[8, 8]], np.float32)
    with pytest.raises(TargetError, match=rf"Node {name!r}: Lava holds weights in 8 bits.*to 128\. Use"):
        run_network(network, batch, 1, options=LavaTarget("faithful"))
    network.graph.nodes[name].weight[0, 0] = 2**28
    with pytest.raises(TargetError, match=r"current of node 'if1' may reach \d+, and integers of 32 bits"):
        run_network(network, batch, 1)


def test_numbers_that_are_no_integers_are_named() -> None:
    rng = np.random.default_rng(0)
    network = in_fixed_point(sequential(rng, (2, 4, 4), [conv2d(rng, 2, 3), IF, pool(nir.AvgPool2d), IF]), 0)
    batch = integer_images(network, 1)
    with pytest.raises(NetworkError, match=r"Node 'avgpool2d2' .* an average is not an integer"):
        lower(network, batch, 1)
    network = in_fixed_point(sequential(rng, (2, 4, 4), [conv2d(rng, 2, 3), IF]), 0)
    network.graph.nodes["conv2d0"].weight[0, 0, 0, 0] += 0.25
    with pytest.raises(NetworkError, match=r"Node 'conv2d0' \(Conv2d\): weight holds numbers that are not integers"):
        lower(network, batch, 1)


@settings(deadline=None)
@given(
    st.sampled_from([">=", ">"]),
    st.integers(-800, 800).map(lambda sixteenths: sixteenths / 16),
    st.integers(1, 40),
    st.lists(st.integers(-60, 60), min_size=1, max_size=8),
)
def test_the_whole_part_of_a_potential_fires_the_same_spikes(
    worker_modules: SimpleNamespace, condition: str, start: float, theta: int, currents: list[int]
) -> None:
    shape = (1,)
    node = LoweredNode(
        "neuron",
        {"condition": condition, "reset": "subtract", "per_sample": []},
        {"threshold": np.full(shape, theta, np.float32), "v_init": np.full(shape, start, np.float32)},
    )
    lowered = in_integers(node)
    assert {array.dtype for array in lowered.arrays.values()} == {np.dtype(np.int32)}
    layer = SimpleNamespace(name="if", shape=shape, settings=lowered.settings, array=lowered.arrays.get)
    integers = worker_modules.neurons.Neurons(layer, 1, np.int32)
    integers.begin(0, 1)
    potential = float(np.float32(start))
    for t, current in enumerate(currents):
        potential += current
        fired = potential >= theta if condition == ">=" else potential > theta
        assert integers.step(t, np.full((1, 1), current, np.float32)).item() == fired
        potential -= theta * fired


@pytest.mark.usefixtures("lava_environment")
@pytest.mark.parametrize("backend", BACKENDS)
def test_states_of_each_sample_in_integers(backend: Any) -> None:
    network, rng = in_fixed_point(residual(np.random.default_rng(2)), 7), np.random.default_rng(5)
    batch = integer_images(network, 3)
    states = SampleStates(
        v_init={
            name: rng.integers(-300, 301, (3, *spec.shape)).astype(np.float32) + np.float32(0.5)
            for name, spec in network.neurons.items()
        }
    )
    expected = simulate(network, batch, 3, states=states, device="cpu")
    _assert_same(run_network(network, batch, 3, states=states, options=LavaTarget(backend, batch_size=2)), expected)


def test_a_potential_that_24_bits_cannot_hold_is_named() -> None:
    rng = np.random.default_rng(0)
    network = in_fixed_point(sequential(rng, (4,), [affine(rng, 4, 4), IF]), 0)
    spec = replace(neurons(rng, (4,)), threshold=np.full(4, 2.0**23, np.float32), v_init=np.zeros(4, np.float32))
    network = network.with_neurons(dict.fromkeys(network.neurons, spec))
    with pytest.raises(NetworkError, match=r"Node 'if1' .* threshold reaches 8388608, and potentials of 24 bits end"):
        lower(network, integer_images(network, 1), 1)
