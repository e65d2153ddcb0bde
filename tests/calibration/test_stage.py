from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_networks import two_layers

from calibration import METHODS, MeanMatching, calibrate, method_names
from cos_export.errors import InputError, UnavailableError
from cos_export.network import SpikingNetwork
from cos_export.simulation import ann_logits, simulate

IMAGES = np.random.default_rng(0).normal(size=(40, 2, 5, 5)).astype(np.float32)


def test_half_is_half_the_threshold() -> None:
    network = two_layers(seed=1)
    moved = network.with_neurons(
        {
            "first": type(network.neurons["first"])(
                network.neurons["first"].threshold, network.neurons["first"].threshold
            )
        }
    )
    actual = calibrate(moved, IMAGES, "half", 4)
    assert all(np.array_equal(spec.v_init, spec.threshold / 2) for spec in actual.neurons.values())
    assert (actual.method, actual.num_timesteps, actual.rho) == ("half", 4, 0)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("rounds", [1, 4])
def test_mean_matching_by_its_formula(steps: int, rounds: int) -> None:
    """v_init += T (E[a_ann] - E[a_snn]) layer by layer, the activations by their definition, the rates by counting."""
    network = two_layers(seed=7)
    actual = calibrate(network, IMAGES, MeanMatching(rounds), steps, batch_size=7)
    conv = torch.nn.functional.conv2d(
        torch.from_numpy(IMAGES).double(),
        torch.from_numpy(network.graph.nodes["conv"].weight).double(),
        torch.from_numpy(network.graph.nodes["conv"].bias).double(),
        padding=1,
    ).numpy()
    first = np.clip(conv / 1.0, 0, 1)
    dense = network.graph.nodes["dense"]
    second = np.clip((first.reshape(len(IMAGES), -1) @ dense.weight.T + dense.bias) / 0.75, 0, 1)
    matched, moved = network, 0

    def lacking(candidate: SpikingNetwork, name: str, activation: NDArray[np.float64]) -> NDArray[np.float64]:
        spikes = simulate(candidate, IMAGES, steps).spikes[name]
        return np.asarray(activation.mean(0) - spikes.mean((0, 1), np.float64))

    for name, activation in (("first", first), ("second", second)):
        spec = network.neurons[name]
        best, share, error = spec.v_init, np.ones(spec.shape), lacking(matched, name, activation)
        for _ in range(rounds):
            tried = (best + share * steps * spec.threshold * error).astype(np.float32)
            remaining = lacking(matched.with_neurons({name: replace(spec, v_init=tried)}), name, activation)
            closer = np.abs(remaining) < np.abs(error)
            best, error = np.where(closer, tried, best), np.where(closer, remaining, error)
            share = np.where(closer, share, share / 2)
        moved += int((best != spec.v_init).sum())
        np.testing.assert_allclose(actual.neurons[name].v_init, best, rtol=1e-5, atol=1e-5)
        matched = matched.with_neurons({name: replace(spec, v_init=best)})
    assert moved > 10, "of 81 neurons"


def test_mean_matching_brings_the_rates_to_the_activations() -> None:
    network, steps = two_layers(seed=8), 2
    actual = calibrate(network, IMAGES, "mean-matching", steps)
    gap = {
        label: abs(
            simulate(n, IMAGES, steps, record_spikes=False).logits[-1].mean(0) - ann_logits(n, IMAGES).mean(0)
        ).sum()
        for label, n in (("half", network), ("matched", actual))
    }
    assert gap["matched"] < gap["half"]
    assert (actual.method, actual.num_timesteps) == ("mean-matching", steps)


def test_the_result_does_not_depend_on_the_batch_size_but_for_rounding() -> None:
    network = two_layers(seed=8)
    small, large = (calibrate(network, IMAGES, MeanMatching(rounds=3), 2, batch_size=size) for size in (3, 40))
    for name in network.layers:
        np.testing.assert_allclose(small.neurons[name].v_init, large.neurons[name].v_init, rtol=1e-5, atol=1e-5)


def test_progress_is_told() -> None:
    seen: list[tuple[int, int]] = []
    calibrate(
        two_layers(seed=1),
        IMAGES,
        MeanMatching(rounds=3),
        1,
        progress=lambda stage, done, total: seen.append((done, total)),
    )
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_the_network_is_left_as_it_was() -> None:
    network = two_layers(seed=4)
    before = {name: spec.v_init.copy() for name, spec in network.neurons.items()}
    calibrate(network, IMAGES, "mean-matching", 2)
    assert all(np.array_equal(before[name], network.neurons[name].v_init) for name in before)


def test_refusals() -> None:
    network = two_layers(seed=1)
    with pytest.raises(
        InputError,
        match=r"no calibration method 'best'\. There are half, opi, rmp, mean-matching, bias, ftbc, static, cos, srp",
    ):
        calibrate(network, IMAGES, "best", 1)
    with pytest.raises(InputError, match=r"calibration=cos_export\.COS"):
        calibrate(network, IMAGES, "cos", 1)
    with pytest.raises(InputError, match="how many with steps="):
        calibrate(network, IMAGES, "half")
    with pytest.raises(InputError, match=r"\(samples, 2, 5, 5\)"):
        calibrate(network, IMAGES[:, :1], "half", 1)
    with pytest.raises(InputError, match="not finite"):
        calibrate(network, np.full((1, 2, 5, 5), np.nan, np.float32), "half", 1)
    with pytest.raises(InputError, match="'tpu' is not a device"):
        calibrate(network, IMAGES, "half", 1, device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UnavailableError, match="0 CUDA devices"):
            calibrate(network, IMAGES, "half", 1, device="cuda:0")


def test_methods_by_name() -> None:
    assert method_names() == ("half", "opi", "rmp", "mean-matching", "bias", "ftbc", "static", "cos", "srp")
    assert [method.needs_data for method in METHODS.values()] == [False, False, *[True] * 5, False, False]
    assert [method.depends_on_steps for method in METHODS.values()] == [False, False, *[True] * 5, False, False]
