from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrowing import present
from small_networks import two_layers
from two_layer_reference import Doubles, dyadic_images, first_currents, held, second_currents

from calibration import FTBC, calibrate
from calibration.checkpoint import Checkpoint
from cos_export.bundle import load
from cos_export.errors import InputError
from cos_export.exporting import export
from cos_export.network import SpikingNetwork
from cos_export.simulation import simulate
from targets.verification import verify

IMAGES = dyadic_images(10)
THETAS = (1.0, 0.75)
ONE_BATCH = FTBC(alpha=0.5, batches=1, samples=10)


def of_layer(currents: Doubles, activation: Doubles, theta: float, bias: Doubles, alpha: float) -> Doubles:
    """Updates `bias` (steps, channels) in place, one neuron at a time; the spikes that the layer then sends."""
    steps, samples, channels = currents.shape[:3]
    flat = currents.reshape(steps, samples, channels, -1)
    expected = activation.reshape(samples, channels, -1)
    positions = flat.shape[3]
    spikes, potential = np.zeros_like(flat), np.full(flat.shape[1:], theta / 2)
    for t in range(steps):
        for c in range(channels):
            error = 0.0
            for n in range(samples):
                for p in range(positions):
                    charged = potential[n, c, p] + flat[t, n, c, p] + bias[t, c]
                    error += theta * (expected[n, c, p] - (1 if charged >= theta else 0))
            bias[t, c] += alpha * error / (samples * positions)
            for n in range(samples):
                for p in range(positions):
                    charged = potential[n, c, p] + flat[t, n, c, p] + bias[t, c]
                    spikes[t, n, c, p] = 1 if charged >= theta else 0
                    potential[n, c, p] = charged - theta * spikes[t, n, c, p]
    return spikes.reshape(currents.shape)


@pytest.mark.parametrize(("steps", "batches", "alpha"), [(1, 1, 0.5), (3, 1, 1.0), (3, 3, 0.4)])
def test_step_by_step_from_its_definition(steps: int, batches: int, alpha: float) -> None:
    network = two_layers(seed=6)
    actual = calibrate(network, IMAGES, FTBC(alpha=alpha, batches=batches, samples=50), steps)
    first = first_currents(network, IMAGES)
    first_ann = np.clip(first / THETAS[0], 0, 1)
    second_ann = np.clip(second_currents(network, first_ann) / THETAS[1], 0, 1)
    biases = np.zeros((steps, 3)), np.zeros((steps, 6))
    for _ in range(batches):
        spikes = of_layer(held(first, steps), first_ann, THETAS[0], biases[0], alpha)
        of_layer(second_currents(network, spikes), second_ann, THETAS[1], biases[1], alpha)
    for name, expected in zip(("first", "second"), biases, strict=True):
        spec = actual.neurons[name]
        np.testing.assert_allclose(present(spec.bias), expected, rtol=1e-5, atol=1e-6)
        assert np.array_equal(spec.v_init, network.neurons[name].v_init)
        assert np.abs(expected).max() > 1e-3, "there was something to correct"
    assert actual.graph is network.graph, "weights stay as they are"
    assert (actual.method, actual.num_timesteps, actual.rho) == ("ftbc", steps, 0)


def gap(network: SpikingNetwork, reference: SpikingNetwork, steps: int) -> float:
    """The mean error of the last layer's channels at each step, by counting."""
    first = np.clip(first_currents(reference, IMAGES), 0, 1)
    expected = np.clip(second_currents(reference, first) / THETAS[1], 0, 1).mean(0)
    return float(np.abs(expected - simulate(network, IMAGES, steps).spikes["second"].mean(1)).mean())


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_mean_of_each_step_comes_closer_to_the_activations(steps: int) -> None:
    network = two_layers(seed=6)
    assert gap(calibrate(network, IMAGES, FTBC(samples=10), steps), network, steps) < gap(network, network, steps)


def test_it_starts_from_the_bias_that_is_there_and_reads_only_outputs() -> None:
    network = two_layers(seed=6)
    bias, spec = np.full((1, 3), 0.25, np.float32), network.neurons["first"]
    mute = network.with_neurons({"first": replace(spec, bias=bias, silent=np.ones(spec.shape, np.bool_))})
    actual = calibrate(mute, IMAGES, ONE_BATCH, 2).neurons["first"]
    expected = 0.5 * np.clip(first_currents(network, IMAGES), 0, 1).mean((0, 2, 3))
    np.testing.assert_allclose(present(actual.bias), [0.25 + expected, expected], rtol=1e-5)


def test_the_bias_of_each_step_survives_the_export_and_every_target_fires_with_it(tmp_path: Path) -> None:
    steps, network = 3, calibrate(two_layers(seed=6), IMAGES, ONE_BATCH, 3)
    export(network, tmp_path / "out", golden=IMAGES)
    bundle = load(tmp_path / "out")
    for name in network.layers:
        assert np.array_equal(present(bundle.network.neurons[name].bias), present(network.neurons[name].bias))
    plain = network.with_neurons({name: replace(spec, bias=None) for name, spec in network.neurons.items()})
    unlike = simulate(plain, IMAGES, steps).spikes["second"] != bundle.golden.trace.spikes["second"]
    assert unlike.any(), "without the bias other spikes fire"
    result = verify(bundle, ["pytorch", "onnxruntime", "lava"])
    assert result.passed
    for target in result.values():
        assert (target.mismatches, target.local_violations) == (0, 0)


def test_it_goes_on_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Checkpoint.__init__
    monkeypatch.setattr(Checkpoint, "__init__", lambda self, path, given: original(self, path, given, every=0.0))
    network, kept, method = two_layers(seed=6), tmp_path / "state", FTBC(batches=5, samples=4)

    def kill(stage: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    whole = calibrate(network, IMAGES, method, 2)
    with pytest.raises(KeyboardInterrupt):
        calibrate(network, IMAGES, method, 2, resume=kept, progress=kill)
    again = calibrate(network, IMAGES, method, 2, resume=kept)
    for name in network.layers:
        assert np.array_equal(present(whole.neurons[name].bias), present(again.neurons[name].bias))


def test_refusals() -> None:
    refused: list[tuple[str, dict[str, Any]]] = [
        ("0 < alpha <= 1", {"alpha": 0.0}),
        ("0 < alpha <= 1", {"alpha": 1.5}),
        ("batches >= 1", {"batches": 0}),
        ("samples >= 1", {"samples": 0}),
    ]
    for message, wrong in refused:
        with pytest.raises(InputError, match=message):
            FTBC(**wrong)
