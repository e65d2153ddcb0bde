"""Maxima of spike counts against PyTorch's max pooling of the same integers, for windows of every kind."""

from dataclasses import replace

import nir
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cos_export.capturing.builder import Builder
from cos_export.capturing.maxima import Windows, pooled
from cos_export.capturing.maxima.splits import Grid, best_split, neurons_along
from cos_export.network.windows import windows
from cos_export.simulation import ann_logits, simulate

THETA = 0.75


@st.composite
def pools(draw):
    """Arguments of max_pool2d, or of max_pool1d, and the sizes that they are for."""
    axes = draw(st.integers(1, 2))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    kernel, stride, dilation, sizes = each(1, 6), each(1, 5), each(1, 2), each(2, 9)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    reach = [n + 2 * p - d * (k - 1) for n, p, d, k in zip(sizes, padding, dilation, kernel, strict=True)]
    assume(all(r >= 1 for r in reach))
    return sizes, kernel, stride, padding, dilation, draw(st.booleans())


def spiking(sizes, windows, direction=1):
    """Neurons that the input charges, their maxima, and these as the readout."""
    builder = Builder((2, *sizes))
    _, counts = builder.neurons("first", builder.input, THETA, 4)
    result = pooled(builder, "pool", counts, windows, direction)
    features = int(np.prod(result.shape))
    if len(result.shape) > 1:
        rank = len(result.shape)

        def flatten(taken):
            return nir.Flatten({"input": np.array(taken)}, start_dim=-rank, end_dim=-1)

        _, result = builder.unweighted("flat", result, (features,), flatten, spread=features // 2)
    return builder.finish(result)


def readouts(network, z):
    """What the artificial network gives, and what four spikes at most give layer after layer, both in spikes."""
    layerwise = simulate(replace(network, schedule="layerwise"), z, 4, device="cpu")
    return [np.asarray(r) * 4 / THETA for r in (ann_logits(network, z, device="cpu"), layerwise.logits[-1])]


def quantised(*shape, seed=0):
    """Currents, and the spikes of four steps that they make: QCFS of 4 levels."""
    z = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 1.5 - 0.4
    return z, torch.floor(z.double() * 4 / THETA + 0.5).clamp(0, 4)


@settings(max_examples=100, deadline=None)
@given(pools(), st.integers(0, 2**31 - 1))
def test_any_pooling_is_that_of_the_integers(pool, seed):
    sizes, kernel, stride, padding, dilation, ceil = pool
    z, counts = quantised(3, 2, *sizes, seed=seed)
    expected = (F.max_pool2d if len(sizes) == 2 else F.max_pool1d)(counts, kernel, stride, padding, dilation, ceil)
    network = spiking(sizes, Windows(kernel, stride, padding, dilation, tuple(expected.shape[2:])))
    for actual in readouts(network, z):
        np.testing.assert_allclose(actual, expected.flatten(1), atol=1e-5)
    # One level of the tree for each doubling of a window, and the layer itself.
    assert windows(network, 2).latency - 2 == 1 + sum((k - 1).bit_length() for k in kernel)


@settings(max_examples=20, deadline=None)
@given(pools())
def test_a_minimum_without_padding_is_one_too(pool):
    sizes, kernel, stride, _, dilation, _ = pool
    z, counts = quantised(2, 2, *sizes)
    assume(all(n >= d * (k - 1) + 1 for n, d, k in zip(sizes, dilation, kernel, strict=True)))
    expected = -(F.max_pool2d if len(sizes) == 2 else F.max_pool1d)(-counts, kernel, stride, 0, dilation)
    nothing = (0,) * len(sizes)
    network = spiking(sizes, Windows(kernel, stride, nothing, dilation, tuple(expected.shape[2:])), -1)
    for actual in readouts(network, z):
        np.testing.assert_allclose(actual, expected.flatten(1), atol=1e-5)


@pytest.mark.parametrize(
    ("length", "step", "count", "neurons"),
    [(2, 2, 8, 8), (3, 2, 8, 16), (4, 4, 4, 8 + 4), (3, 1, 8, 16 + 1), (8, 8, 1, 7), (5, 1, 8, 8 + 9 + 11)],
)
def test_windows_share_what_they_can(length, step, count, neurons):
    """Side by side k - 1 neurons for each window; side by side with overlaps fewer, at every position log2 k."""
    assert neurons_along(length, Grid(0, step, count), 1) <= neurons


def test_a_long_window_is_split_in_halves_and_at_once():
    split = best_split(16000, Grid(0, 1, 1), 1)
    assert max(split.start, split.end) == 8000
    assert neurons_along(16000, Grid(0, 1, 1), 1) < 2 * 16000
