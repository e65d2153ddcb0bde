"""Synapses that pick or compare entries are told from those whose weights were learnt."""

import nir
import numpy as np
import pytest

from cos_export.network.wiring import is_wiring, picks_entries


def depthwise(kernel, channels=2, stride=1, bias=0.0):
    weight = np.repeat(np.asarray(kernel, np.float32)[None, None], channels, 0)
    return nir.Conv2d((4, 4), weight, stride, 0, 1, channels, np.full(channels, bias, np.float32))


@pytest.mark.parametrize(
    ("node", "wiring", "picks"),
    [
        (depthwise([[0, 1]]), True, True),
        (depthwise([[1]], stride=2), True, True),
        (depthwise([[1, 0], [0, -1]]), True, False),
        (depthwise([[-1]]), True, False),
        # One that carries everything on stands where a synapse is wanted.
        (depthwise([[1]]), True, False),
        (depthwise([[1, 1]]), False, False),
        (depthwise([[0, 2]]), False, False),
        (depthwise([[0, 1]], bias=0.5), False, False),
        (nir.Conv2d((4, 4), np.eye(2, dtype=np.float32)[:, :, None, None], 1, 0, 1, 1, np.zeros(2)), False, False),
        (nir.Affine(np.eye(2, dtype=np.float32), np.zeros(2, np.float32)), False, False),
        (nir.SumPool2d(np.array([1, 1]), np.array([2, 2]), np.array([0, 0])), False, False),
    ],
)
def test_by_their_weights(node, wiring, picks):
    assert (is_wiring(node), picks_entries(node)) == (wiring, picks)


def test_over_one_axis():
    node = nir.Conv1d(4, np.array([[[0, 0, 1]]], np.float32), 2, 0, 1, 1, np.zeros(1, np.float32))
    assert is_wiring(node) and picks_entries(node)
