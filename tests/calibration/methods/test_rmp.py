from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import pytest
from interrupted_calibration import whole_and_resumed
from small_networks import layer, two_layers
from two_layer_reference import dyadic_images, fired, first_currents, held, second_currents

from calibration import RMP, calibrate
from cos_export.errors import InputError, NetworkError
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.simulation import ann_logits, simulate

IMAGES = dyadic_images(12)


def references(network: SpikingNetwork, steps: int) -> tuple[float, float]:
    """Both thresholds, in the units of the network: the amplitude of the first layer's spike was 1."""
    first = held(first_currents(network, IMAGES), steps)
    theta = first.max()
    spikes = fired(first, theta, 0.0)
    return theta, second_currents(network, spikes * theta / 1.0).max()


@pytest.mark.parametrize(("steps", "horizon"), [(2, 7), (9, 7), (1, 1)])
@pytest.mark.parametrize("batch_size", [5, 64])
def test_layer_by_layer_from_its_definition(steps: int, horizon: int, batch_size: int) -> None:
    network = two_layers(seed=6)
    actual = calibrate(network, IMAGES, RMP(horizon=horizon), steps, batch_size=batch_size)
    first, second = references(network, max(steps, horizon))
    assert np.array_equal(actual.neurons["first"].threshold, np.full((3, 5, 5), first))
    assert np.array_equal(actual.neurons["second"].threshold, np.full(6, second, np.float32))
    before, after = network.graph.nodes, actual.graph.nodes
    assert np.array_equal(after["dense"].weight, before["dense"].weight * first), "theta_old = 1"
    np.testing.assert_allclose(after["head"].weight, before["head"].weight * (second / 0.75), rtol=1e-6)
    for name in ("dense", "head"):
        assert np.array_equal(after[name].bias, before[name].bias)
    for spec in actual.neurons.values():
        assert not spec.v_init.any() and spec.levels is None
    assert (actual.method, actual.num_timesteps) == ("rmp", steps)


def test_the_first_layer_never_saturates_and_long_runs_reach_the_activations() -> None:
    network = two_layers(seed=6)
    actual, steps = calibrate(network, IMAGES, RMP(horizon=64), 64), 512
    trace = simulate(actual, IMAGES, steps)
    rates = trace.spikes["first"].mean(0) * actual.neurons["first"].threshold
    expected = np.maximum(first_currents(network, IMAGES), 0)
    assert np.abs(rates - expected).max() <= actual.neurons["first"].threshold.max() / steps
    assert np.abs(trace.logits[-1] - ann_logits(actual, IMAGES)).max() < 0.2


def test_levels_are_gone_and_a_silent_layer_keeps_its_threshold() -> None:
    network = two_layers(seed=6)
    quantised = network.with_neurons({"first": replace(layer((3, 5, 5), 1.0), levels=4)})
    dark = dict(quantised.graph.nodes)
    dark["dense"] = type(dark["dense"])(dark["dense"].weight * 0, np.full(6, -1, np.float32))
    quantised.graph.nodes = dark
    actual = calibrate(SpikingNetwork(quantised.graph, quantised.neurons), IMAGES, "rmp", 2)
    assert actual.neurons["first"].levels is None
    assert np.array_equal(actual.neurons["second"].threshold, np.full(6, 0.75, np.float32))


def test_it_goes_on_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = two_layers(seed=6)
    whole, again = whole_and_resumed(network, IMAGES, RMP(horizon=4), tmp_path / "state", monkeypatch)
    for name in network.layers:
        assert np.array_equal(whole.neurons[name].threshold, again.neurons[name].threshold)


def test_refusals() -> None:
    network = two_layers(seed=1)
    spec = network.neurons["second"]
    hard = NeuronSpec(spec.threshold, spec.v_init, reset="value", v_reset=np.zeros(6, np.float32))
    with pytest.raises(InputError, match="'second' is reset to a value"):
        calibrate(network.with_neurons({"second": hard}), IMAGES, "rmp", 1)
    with pytest.raises(InputError, match="horizon"):
        RMP(horizon=0)
    bare = two_layers(seed=1)
    graph = nir.NIRGraph(
        {name: node for name, node in bare.graph.nodes.items() if name not in ("head", "output")}
        | {"output": nir.Output({"output": np.array([6])})},
        [edge for edge in bare.graph.edges if "head" not in edge] + [("second", "output")],
    )
    seen: list[str] = []
    with pytest.raises(NetworkError, match=r"'output' \(Output\) reads 'second' with no weight"):
        calibrate(
            SpikingNetwork(graph, bare.neurons),
            IMAGES,
            "rmp",
            1,
            progress=lambda stage, done, total: seen.append(stage),
        )
    assert not seen, "it is refused before the work"
