"""Weights as integers that take up each other's errors, beside searches and sums that are written out."""

from __future__ import annotations

import itertools
from typing import Any

import nir
import numpy as np
import pytest
import torch

from cos_export.quantisation import fitting
from cos_export.quantisation.fitting import fitted_synapse
from cos_export.quantisation.scales import Rounding, rounded_synapse, squared_error

PLAIN = Rounding()


def correlated(rng: np.random.Generator, samples: int, inputs: int, sources: int = 3) -> Any:
    """Inputs that go together and whose mean is not zero, as those of neighbouring pixels or of spikes."""
    mixing = np.random.default_rng(99).random((sources, inputs))
    return (rng.random((samples, sources)) @ mixing + 0.05 * rng.random((samples, inputs))).astype(np.float32)


def dense(rng: np.random.Generator, outputs: int, inputs: int) -> nir.Affine:
    weight, bias = rng.normal(size=(outputs, inputs)) / 8, rng.normal(size=outputs)
    return nir.Affine(weight.astype(np.float32), bias.astype(np.float32))


def error(node: Any, whole: Any, input_scale: float, scale: Any, x: Any) -> Any:
    """The squared error of each output, by sample: real numbers beside integers times what they stand for."""
    weight: Any = np.asarray(node.weight, np.float64)
    bias = np.asarray(getattr(node, "bias", np.zeros(len(weight))), np.float64)
    scale = np.broadcast_to(scale, len(weight))
    integers = np.asarray(whole.weight, np.float64)
    actual = (x / input_scale) @ integers.T + getattr(whole, "bias", np.zeros(len(weight)))
    return ((actual * scale - (x @ weight.T + bias)) ** 2).mean(0)


@pytest.mark.parametrize("rounding", [PLAIN, Rounding(even_weights=True)], ids=["all", "even"])
def test_inputs_that_go_together_make_up_for_each_other(rounding: Rounding) -> None:
    rng = np.random.default_rng(0)
    node, seen, fresh = dense(rng, 6, 40), correlated(rng, 200, 40), correlated(rng, 200, 40)
    scale = np.array([0.02])
    actual = fitted_synapse(node, 1.0, scale, rounding, torch.from_numpy(seen))
    nearest = rounded_synapse(node, 1.0, scale, rounding)
    for images in (seen, fresh):
        assert error(node, actual, 1.0, scale, images).sum() < 0.1 * error(node, nearest, 1.0, scale, images).sum()
    step = 2 if rounding.even_weights else 1
    assert (actual.weight % step == 0).all()
    assert np.abs(actual.weight - node.weight / 0.02).max() < step
    drift = (actual.weight * 0.02 - node.weight) @ seen.mean(0)
    np.testing.assert_allclose(actual.bias, (node.bias - drift) / 0.02, atol=0.5 + 1e-3)


def test_it_is_between_the_nearest_integers_and_the_best_of_all_choices() -> None:
    """Of eight weights, each at one of the two integers beside it, with the bias that is then the best."""
    scale, input_scale, sums = 0.05, 0.5, np.zeros(3)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        node, x = dense(rng, 1, 8), correlated(rng, 60, 8)
        actual = fitted_synapse(node, input_scale, np.array([scale]), PLAIN, torch.from_numpy(x))
        nearest = rounded_synapse(node, input_scale, np.array([scale]), PLAIN)
        below, least = np.floor(np.float64(node.weight[0]) * input_scale / scale), np.inf
        for up in itertools.product((0, 1), repeat=8):
            change = (below + up) * scale / input_scale - node.weight[0]
            bias = np.rint((node.bias[0] - (x @ change).mean()) / scale) * scale
            least = min(least, ((x @ change + bias - node.bias[0]) ** 2).mean())
        reached, before = (error(node, whole, input_scale, np.array([scale]), x)[0] for whole in (actual, nearest))
        assert least * (1 - 1e-6) <= reached <= before * (1 + 1e-6)
        sums += (least, reached, before)
    assert sums[1] < 6 * sums[0] and sums[1] < 0.1 * sums[2]


@pytest.mark.parametrize("seed", range(8))
def test_no_channel_gets_further_away(seed: int) -> None:
    """Not with inputs that are not alike at all, nor with scales in which weights are clipped."""
    rng = np.random.default_rng(seed)
    node, scale = dense(rng, 12, 20), rng.uniform(0.001, 0.05, 12)
    x = rng.random((30, 20)).astype(np.float32)
    actual = fitted_synapse(node, 1.0, scale, PLAIN, torch.from_numpy(x))
    nearest = rounded_synapse(node, 1.0, scale, PLAIN)
    before, after = (error(node, whole, 1.0, scale, x) for whole in (nearest, actual))
    assert (after <= before * (1 + 1e-4)).all() and after.sum() < 0.9 * before.sum()
    assert actual.weight.min() >= -128 and actual.weight.max() <= 127


GEOMETRIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "strided": {"stride": (2, 1), "padding": (1, 2)},
    "dilated": {"dilation": (2, 1), "padding": "same"},
    "grouped": {"groups": 2, "padding": 1},
}


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("axes", [1, 2])
def test_the_moments_of_a_convolution_are_those_of_its_patches(geometry: str, axes: int) -> None:
    rng, size, kernel = np.random.default_rng(5), (7, 6)[:axes], (3, 2)[:axes]
    given: dict[str, Any] = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **GEOMETRIES[geometry]}
    if axes == 1:
        given = {key: value[0] if isinstance(value, tuple) else value for key, value in given.items()}
    groups = given["groups"]
    weight = (rng.normal(size=(6, 4 // groups, *kernel)) / 8).astype(np.float32)
    kind, shape = (nir.Conv1d, size[0]) if axes == 1 else (nir.Conv2d, size)
    node = kind(shape, weight, bias=rng.normal(size=6).astype(np.float32), **given)
    images = correlated(rng, 19, 4 * int(np.prod(size))).reshape(19, 4, *size)
    arriving = torch.from_numpy(images)
    actual = fitting._moments(node, arriving, groups, slice(0, weight[0].size))
    assert len(actual) == groups
    for group, (mean, moments) in enumerate(actual):
        inputs = 4 // groups
        patches = np.array(written_out(images[:, group * inputs : (group + 1) * inputs], kernel, given), np.float64)
        np.testing.assert_allclose(mean, patches.mean(0), rtol=1e-5)
        np.testing.assert_allclose(moments, patches.T @ patches / len(patches), rtol=1e-5)
    # And they are what its weights are rounded by: inputs that go together less leave less to gain.
    scale = np.array([0.03])
    whole, nearest = fitted_synapse(node, 1.0, scale, PLAIN, arriving), rounded_synapse(node, 1.0, scale, PLAIN)
    before, after = (squared_error(node, made, 1.0, scale, arriving).sum() for made in (nearest, whole))
    assert after < 0.6 * before


def written_out(images: Any, kernel: tuple[int, ...], given: dict[str, Any]) -> Any:
    """(samples times positions, channels times taps), one number at a time."""
    axes = len(kernel)
    stride, dilation = (np.broadcast_to(given[key], axes) for key in ("stride", "dilation"))
    total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    before = [t // 2 for t in total] if given["padding"] == "same" else list(np.broadcast_to(given["padding"], axes))
    after = [t - b for t, b in zip(total, before, strict=True)] if given["padding"] == "same" else before
    padded = np.pad(images, [(0, 0), (0, 0), *zip(before, after, strict=True)])
    counts = [(n - t - 1) // s + 1 for n, t, s in zip(padded.shape[2:], total, stride, strict=True)]
    return [
        [
            padded[(sample, channel, *(p * s + k * d for p, s, k, d in zip(place, stride, tap, dilation, strict=True)))]
            for channel in range(padded.shape[1])
            for tap in np.ndindex(*kernel)
        ]
        for sample in range(len(padded))
        for place in np.ndindex(*counts)
    ]


def test_what_has_no_bias_makes_up_for_the_mean_by_its_weights() -> None:
    rng = np.random.default_rng(3)
    node, x, scale = nir.Linear(dense(rng, 6, 40).weight), correlated(rng, 100, 40), np.array([0.02])
    actual = fitted_synapse(node, 1.0, scale, PLAIN, torch.from_numpy(x))
    nearest = rounded_synapse(node, 1.0, scale, PLAIN)
    assert isinstance(actual, nir.Linear)
    assert error(node, actual, 1.0, scale, x).sum() < 0.1 * error(node, nearest, 1.0, scale, x).sum()


def test_inputs_that_never_change_leave_all_to_the_bias() -> None:
    rng = np.random.default_rng(4)
    node, scale = dense(rng, 5, 10), np.array([0.02])
    actual = fitted_synapse(node, 1.0, scale, PLAIN, torch.ones(3, 10))
    nearest = rounded_synapse(node, 1.0, scale, PLAIN)
    np.testing.assert_array_equal(actual.weight, nearest.weight)
    assert error(node, actual, 1.0, scale, np.ones((3, 10))).max() <= (0.02 / 2) ** 2 * (1 + 1e-4)
    silent = fitted_synapse(node, 1.0, scale, PLAIN, torch.zeros(3, 10))
    np.testing.assert_array_equal(silent.bias, nearest.bias)


def test_more_inputs_than_are_heeded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    node, x, scale = dense(rng, 6, 50), correlated(rng, 100, 50), np.array([0.02])
    monkeypatch.setattr(fitting, "LARGEST_BLOCK", 16)
    monkeypatch.setattr(fitting, "_PANEL", 5)
    actual = fitted_synapse(node, 1.0, scale, PLAIN, torch.from_numpy(x))
    nearest = rounded_synapse(node, 1.0, scale, PLAIN)
    assert error(node, actual, 1.0, scale, x).sum() < 0.2 * error(node, nearest, 1.0, scale, x).sum()
    drift = (np.float64(actual.weight) * 0.02 - node.weight) @ np.float64(x).mean(0)
    np.testing.assert_allclose(actual.bias, (node.bias - drift) / 0.02, atol=0.5 + 1e-3)


def test_errors_are_handed_on_alike_in_panels_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    node, x = dense(rng, 6, 30), torch.from_numpy(correlated(rng, 100, 30))
    whole = fitted_synapse(node, 1.0, np.array([0.02]), PLAIN, x)
    monkeypatch.setattr(fitting, "_PANEL", 7)
    np.testing.assert_array_equal(fitted_synapse(node, 1.0, np.array([0.02]), PLAIN, x).weight, whole.weight)


def test_inputs_that_hardly_change_are_no_reason_to_fail() -> None:
    """Of sums in float32, variances far below the square of the mean come out as noise, also below zero."""
    rng = np.random.default_rng(5)
    node = dense(rng, 4, 64)
    x = (3.0 + 1e-6 * rng.normal(size=(200, 64))).astype(np.float32)
    actual = fitted_synapse(node, 1.0, np.array([0.02]), PLAIN, torch.from_numpy(x))
    nearest = rounded_synapse(node, 1.0, np.array([0.02]), PLAIN)
    assert (error(node, actual, 1.0, 0.02, x) <= error(node, nearest, 1.0, 0.02, x) + 1e-9).all()
    assert np.abs(actual.weight - node.weight / 0.02).max() < 1
