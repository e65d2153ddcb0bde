"""Calibration of networks whose layers fire one after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from divergence import divergence
from small_networks import two_layers

from calibration import METHODS, Static, calibrate
from calibration.tuning.counts import differentiable_counts
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork
from cos_export.simulation import ann_logits, simulate

T = 2


def network() -> SpikingNetwork:
    return two_layers(seed=5)


def images_of(net: SpikingNetwork, count: int = 80) -> Any:
    return np.random.default_rng(3).random((count, *net.input_shape), np.float32)


def test_the_derivative_is_one_inside_and_zero_outside() -> None:
    """theta = 2, v_init = 1, T = 3: m / theta = -0.5, 0, 0.75, 3.9, 4 and n = 0, 0, 0, 3, 3: the ends are outside."""
    total = torch.tensor([[[-2.0, -1.0, 0.5, 6.8, 7.0]]], requires_grad=True)
    start = torch.ones(5, requires_grad=True)
    threshold = torch.tensor(2.0, requires_grad=True)
    counts = differentiable_counts(total, 3, start, threshold)
    assert counts.detach().flatten().tolist() == [0, 0, 0, 3, 3]
    counts.sum().backward()
    inside = np.array([0, 1, 1, 1, 0])
    assert total.grad is not None and start.grad is not None and threshold.grad is not None
    np.testing.assert_allclose(total.grad.flatten(), inside / 2)
    np.testing.assert_allclose(start.grad, inside / 2)
    m = np.array([-1.0, 0.0, 1.5, 7.8, 8.0])
    np.testing.assert_allclose(float(threshold.grad), float((-m / 4 * inside).sum()), rtol=1e-6)


@pytest.mark.parametrize("method", ["half", "opi"])
def test_without_data_the_schedule_is_taken_on(method: str) -> None:
    calibrated = calibrate(network(), images_of(network()), method, T, schedule="layerwise")
    assert calibrated.schedule == "layerwise"
    for spec in calibrated.neurons.values():
        np.testing.assert_array_equal(spec.v_init, spec.threshold / 2)


@pytest.mark.parametrize("method", ["mean-matching", "bias"])
def test_rates_come_closer_to_what_they_stand_for(method: str) -> None:
    net = replace(network(), schedule="layerwise")
    images = images_of(net)
    before = calibrate(net, images, "half", T)
    after = calibrate(net, images, method, T)
    assert after.schedule == "layerwise"
    expected = ann_logits(net, images, device="cpu").mean(0)

    def off(calibrated: SpikingNetwork) -> float:
        return float(np.square(simulate(calibrated, images, T, device="cpu").logits[-1].mean(0) - expected).sum())

    assert off(after) < off(before)


@pytest.mark.parametrize(
    ("tune", "steps", "rate"),
    [
        (("weight",), 1, 0.04),
        (("potential", "weight"), 1, 0.04),
        (("bias",), 1, 0.01),
        (("potential",), 2, 0.04),
        (("threshold",), 2, 0.01),
    ],
    ids=str,
)
def test_static_comes_closer_in_kl_on_images_of_its_own(tune: Any, steps: int, rate: float) -> None:
    net = two_layers(seed=5, theta=(3.0, 2.0))
    generator = np.random.default_rng(3)
    images, others = (generator.normal(size=(n, *net.input_shape)).astype(np.float32) for n in (240, 200))
    start = calibrate(net, images, "half", steps, schedule="layerwise")
    method = Static(tune=tune, updates=80, samples=32, learning_rate=rate, precision="float32")
    calibrated = calibrate(net, images, method, steps, schedule="layerwise", device="cpu")
    assert calibrated.schedule == "layerwise" and calibrated.calibrated_timesteps == steps
    limit = replace(net, neurons={name: replace(spec, levels=None) for name, spec in net.neurons.items()})
    assert divergence(calibrated, limit, steps, others) < divergence(start, limit, steps, others)


@pytest.mark.parametrize("name", ["rmp", "ftbc"])
def test_what_has_nothing_to_do_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(InputError, match=METHODS[name].synchronous_only[:30]):
        calibrate(network(), images_of(network()), name, T, schedule="layerwise")


def test_compile_is_refused() -> None:
    with pytest.raises(InputError, match="compile fuses"):
        calibrate(network(), images_of(network()), Static(compiled=True), T, schedule="layerwise")


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(InputError, match="'sideways'"):
        calibrate(network(), images_of(network()), "half", T, schedule="sideways")  # type: ignore[arg-type]
