"""The layer-wise schedule against a clocked reference in float64, and against the artificial network at L = T."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import nir
import numpy as np
import pytest
import random_networks as build
import torch
import windowed_reference
from eight_bit_networks import in_integers, pictures, topology
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import COS, SRP
from cos_export.errors import InputError, NetworkError
from cos_export.network import SampleStates, SpikingNetwork, half_potentials
from cos_export.network.windows import windows
from cos_export.simulation import ann_logits, simulate
from cos_export.simulation.fixed_point import quantise_input


def layerwise(network: SpikingNetwork) -> SpikingNetwork:
    neurons = {name: replace(spec, reset="subtract", v_reset=None) for name, spec in network.neurons.items()}
    return replace(network.with_neurons(neurons), schedule="layerwise")


def check_against_reference(network: SpikingNetwork, images: Any, steps: int, taken: Any) -> None:
    trace = simulate(network, images, steps, device="cpu")
    for number, image in enumerate(taken):
        expected = windowed_reference.run(network, [(1, image)], steps)
        for name in network.layers:
            assert np.array_equal(trace.spikes[name][:, number], expected.spikes[name][0]), (name, number)
        scale = 1.0 if network.quantisation is None else network.quantisation.readout_scale
        np.testing.assert_allclose(trace.logits[-1, number], scale * expected.logits[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(12))
def test_every_spike_is_that_of_the_clocked_reference(seed: int, steps: int) -> None:
    network = layerwise(build.random_network(seed))
    images = build.images(network, 2, seed)
    check_against_reference(network, images, steps, images)


@pytest.mark.parametrize("name", ["convolutions", "pooling", "residual", "one_axis", "scaled"])
def test_integers_are_those_of_the_clocked_reference(name: str) -> None:
    network = layerwise(in_integers(topology(name), 3))
    images = pictures(network, 2)
    check_against_reference(network, images, 4, quantise_input(torch.from_numpy(images), network.quantisation).numpy())


def test_every_readout_is_the_mean_of_the_first_steps_of_its_window() -> None:
    network = layerwise(build.residual(np.random.default_rng(4)))
    images = build.images(network, 3)
    trace = simulate(network, images, 4, device="cpu")
    node: Any = network.graph.nodes["readout"]
    for t in range(1, 5):
        mean = trace.spikes["if2"][:t].astype(np.float64).mean(0).reshape(3, -1)
        np.testing.assert_allclose(trace.logits[t - 1], mean @ node.weight.T + node.bias, rtol=1e-5, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), steps=st.sampled_from([1, 2, 4, 8]))
def test_with_half_potentials_it_is_the_artificial_network_of_as_many_levels(seed: int, steps: int) -> None:
    network = layerwise(build.random_network(seed))
    neurons = {
        name: replace(half_potentials(spec), levels=steps, bias=None, silent=None, condition=">=")
        for name, spec in network.neurons.items()
    }
    network = network.with_neurons(neurons)
    images = build.images(network, 2, seed)
    trace = simulate(network, images, steps, device="cpu")
    logits = ann_logits(network, images, device="cpu")
    np.testing.assert_allclose(trace.logits[-1], logits, rtol=1e-5, atol=1e-5)


def test_the_counts_of_a_layer_are_qcfs_by_hand() -> None:
    """theta = 1, T = 4: z = 0.1, 0.2, 0.4, 0.9, 2 become floor(4 z + 1/2) = 0, 1, 2, 4, 8 -> 4 spikes."""
    node = nir.Affine(np.eye(5, dtype=np.float32), np.zeros(5, np.float32))
    one = np.ones(5, np.float32)
    spec = half_potentials(build.neurons(np.random.default_rng(0), (5,)))
    spec = replace(spec, threshold=one, v_init=one / np.float32(2))
    nodes = {"input": nir.Input(np.array([5])), "fc": node, "if": build.spiking_node(spec), "head": node}
    nodes["output"] = nir.Output(np.array([5]))
    names = list(nodes)
    graph = nir.NIRGraph(nodes, list(pairwise(names)), type_check=False)
    network = SpikingNetwork(graph, {"if": spec}, schedule="layerwise")
    trace = simulate(network, np.array([[0.1, 0.2, 0.4, 0.9, 2.0]], np.float32), 4, record_potentials=True)
    assert trace.spikes["if"][:, 0].sum(0).tolist() == [0, 1, 2, 4, 4]
    assert trace.spikes["if"][:, 0, 2].tolist() == [1, 1, 0, 0]
    np.testing.assert_allclose(trace.potentials["if"][:, 0, 2], [1.1, 0.1, 0.1, 0.1], atol=1e-6)


def test_windows_of_a_shortcut_wait_for_the_last() -> None:
    network = build.residual(np.random.default_rng(4))
    actual = windows(network, 4)
    assert actual.opens == {"if1": 3, "if2": 6}
    assert actual.latency == 4 + 3 * 2
    # if2 takes the image, which one layer lies before: 3T - 2.
    assert actual.interval == 3 * 4 - 2
    chain = build.sequential(np.random.default_rng(1), (3,), [build.affine(np.random.default_rng(2), 3, 4), build.IF])
    assert windows(chain, 4).interval == 2 * 4 - 1
    assert windows(chain, 1).latency == windows(chain, 1).interval == 1


def chain() -> SpikingNetwork:
    rng = np.random.default_rng(1)
    layers = [build.affine(rng, 3, 4), build.IF, build.affine(rng, 4, 5), build.IF]
    return build.sequential(rng, (3,), layers)


@pytest.mark.parametrize("make", [lambda: build.residual(np.random.default_rng(4)), chain], ids=["shortcut", "chain"])
def test_the_next_image_may_follow_after_the_interval_and_no_earlier(make: Any) -> None:
    network, steps = layerwise(make()), 4
    first, second = build.images(network, 2, seed=5)
    interval = windows(network, steps).interval
    alone = [windowed_reference.run(network, [(1, image)], steps) for image in (first, second)]

    def same(gap: int) -> bool:
        both = windowed_reference.run(network, [(1, first), (1 + gap, second)], steps)
        return all(
            np.array_equal(both.spikes[name][i], alone[i].spikes[name][0]) for name in network.layers for i in (0, 1)
        )

    assert same(interval)
    assert not same(interval - 1)


def test_what_has_no_layerwise_meaning_is_refused() -> None:
    network = replace(build.residual(np.random.default_rng(4), reset="value"), schedule="layerwise")
    with pytest.raises(NetworkError, match="'if1' is reset to a value"):
        simulate(network, build.images(network, 1), 2)
    network = layerwise(network)
    for method in (COS(rho=2), SRP(tau=2)):
        with pytest.raises(InputError, match=f"'{method.name}' corrects"):
            simulate(network, build.images(network, 1), 2, calibration=method)
    with pytest.raises(InputError, match="'backwards'"):
        replace(network, schedule="backwards")  # type: ignore[arg-type]


def test_states_of_each_sample_are_used() -> None:
    network = layerwise(build.residual(np.random.default_rng(4)))
    images = build.images(network, 2)
    states = SampleStates(v_init={"if1": np.stack([network.neurons["if1"].v_init] * 2) + np.float32(0.5)})
    raised = network.with_neurons(
        {"if1": replace(network.neurons["if1"], v_init=network.neurons["if1"].v_init + np.float32(0.5))}
    )
    one, other = simulate(network, images, 3, states=states), simulate(raised, images, 3)
    assert all(np.array_equal(one.spikes[name], other.spikes[name]) for name in network.layers)


@pytest.mark.parametrize("seed", range(6))
def test_a_run_that_is_observed_tells_of_the_spikes_that_one_records(seed: int) -> None:
    """From n = clip(floor(M / theta), 0, T) alone: s(k) = [n >= k], v(k) = M - theta min(k, n), silent or not."""
    network, steps = layerwise(build.random_network(seed)), 3
    images = build.images(network, 4, seed)
    told: dict[str, Any] = {}
    recorded = simulate(network, images, steps, device="cpu", record_potentials=True)
    observed = simulate(network, images, steps, device="cpu", record_spikes=False, observe=told.__setitem__)
    assert not observed.spikes
    assert observed.logits.tobytes() == recorded.logits.tobytes()
    for name, spec in network.neurons.items():
        run, spikes = told[name], recorded.spikes[name]
        assert np.array_equal(run.counts, spikes.sum(0))
        assert np.array_equal(run.fired, spikes)
        assert np.array_equal(run.spikes, spikes.astype(np.float32))
        ratio = run.charged.numpy() / spec.threshold
        whole = np.ceil(ratio) - 1 if spec.condition == ">" else np.floor(ratio)
        left = [run.charged.numpy() - spec.threshold * np.clip(whole, 0, k) for k in range(1, steps + 1)]
        assert np.array_equal(recorded.potentials[name], np.stack(left))
        assert np.array_equal(run.residual, left[-1])
