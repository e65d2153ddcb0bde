from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import cos_export as ce
from cos_export.costing.counted_run import counted_spikes
from cos_export.costing.timing import Depth, depth_of, readout_latency, timing
from cos_export.network.schedule import Schedule
from tests.cos_export.costing.test_operations import chain, network_of

T = 4


def test_depth_is_that_of_the_longest_path() -> None:
    assert depth_of(chain()) == Depth(layers=2, hops=3)
    # input, conv1, if1, conv2, if2, pool, conv3 or scale, if3, pool2, flatten, head2, output
    assert depth_of(network_of("joined")) == Depth(layers=3, hops=6)


@pytest.mark.parametrize(
    ("schedule", "latency", "interval"),
    [("synchronous", T, T), ("layerwise", T + 2 * (T - 1), 2 * T - 1)],
)
def test_the_time_of_a_static_network(schedule: Schedule, latency: int, interval: int) -> None:
    actual = timing(replace(chain(), schedule=schedule), T)
    assert (actual.steps_per_layer, actual.latency, actual.interval) == (T, latency, interval)
    assert actual.latency_with_hops == latency + 3


def test_a_shortcut_past_a_layer_keeps_the_next_image_waiting() -> None:
    # conv2 and the shortcut from if1 meet in the pooling node: one layer is skipped.
    assert timing(replace(network_of("joined"), schedule="layerwise"), T).interval == 3 * T - 2


@pytest.mark.parametrize("rho", [2, 4, 6])
@pytest.mark.parametrize("iterations", [1, 2])
def test_cos_waits_layer_by_layer(rho: int, iterations: int) -> None:
    actual = timing(chain(), T, ce.COS(rho, iterations))
    assert actual.latency == 2 * iterations * rho + T
    assert actual.steps_per_layer == actual.interval == iterations * rho + max(T, rho)
    assert readout_latency(chain(), T, 1, ce.COS(rho, iterations)) == 2 * iterations * rho + 1


def test_srp_runs_all_layers_twice() -> None:
    actual = timing(chain(), T, ce.SRP(3))
    assert (actual.steps_per_layer, actual.latency, actual.interval) == (3 + T, 3 + T, 3 + T)


@pytest.mark.parametrize("kind", ["strides", "residual", "pools", "bottleneck"])
@pytest.mark.parametrize(("rho", "steps", "iterations"), [(2, 3, 1), (4, 2, 1), (2, 4, 2)])
def test_cos_pays_for_the_replay_of_the_input_of_each_layer(kind: str, rho: int, steps: int, iterations: int) -> None:
    network = network_of(kind)
    array = np.abs(np.random.default_rng(0).standard_normal((4, *network.input_shape))).astype(np.float32)
    method, longest = ce.COS(rho, iterations), max(steps, rho)
    actual = ce.costs(network, array, steps, method).operations
    states = ce.simulate(network, array, longest, calibration=method).states

    def run_for(count: int) -> dict[str, float]:
        """Of the calibrated network, without its calibration."""
        trace = ce.simulate(network, array, longest, states=states)
        part = {name: spikes[:count] for name, spikes in trace.spikes.items()}
        return dict(counted_spikes(network, array, part).at(count).by_node)

    whole, replayed = run_for(steps), run_for(rho)
    once = {"conv2d0", "conv1", "analog"} | ({"conv2d1"} if kind == "bottleneck" else set())
    for name, value in actual.by_node.items():
        again = 0.0 if name == "readout" or name in once else iterations * replayed[name]
        assert value == pytest.approx(whole[name] + again, rel=1e-12), name
    assert actual.presimulation == pytest.approx(actual.synaptic_operations - sum(whole.values()), rel=1e-9)


def test_srp_pays_for_the_run_before_the_run() -> None:
    network = network_of("residual")
    array = np.abs(np.random.default_rng(0).standard_normal((4, *network.input_shape))).astype(np.float32)
    method = ce.SRP(3)
    half = method.presimulated(network)
    first = ce.costs(half, array, 3).operations
    states = ce.simulate(network, array, 2, calibration=method).states
    second = counted_spikes(network, array, ce.simulate(network, array, 2, states=states).spikes).at(2)
    actual = ce.costs(network, array, 2, method).operations
    assert actual.presimulation == pytest.approx(first.effective_acs - first.by_node["readout"])
    assert actual.effective_acs == pytest.approx(actual.presimulation + second.effective_acs)
    assert actual.spikes == pytest.approx(first.spikes + second.spikes)
    assert actual.effective_macs == second.effective_macs


def test_a_per_sample_method_keeps_what_it_replays() -> None:
    cos = ce.costs(chain(), np.ones((1, 1), np.float32), 3, ce.COS(4)).footprint
    assert cos.presimulation == 4 * 5 + 3  # v_init of five neurons, and four steps of five neurons in bits
    assert ce.costs(chain(), np.ones((1, 1), np.float32), 3, ce.SRP(4)).footprint.presimulation == 1
