"""Where integers are coarser than a level, the layer and its channels are named."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import nir
import numpy as np
import pytest

from cos_export.errors import ResolutionWarning
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.quantisation import quantise

IMAGES = np.random.default_rng(0).random((32, 6), np.float32)


def network(theta: Any, head: Any, hidden: Any = None) -> SpikingNetwork:
    """6 values -> 4 neurons of 8 levels -> 3 classes."""
    rng = np.random.default_rng(1)
    weight = np.float32(rng.normal(size=(4, 6))) if hidden is None else hidden
    threshold = np.broadcast_to(np.float32(theta), 4).copy()
    nodes: dict[str, Any] = {
        "input": nir.Input(np.array([6])),
        "dense": nir.Affine(weight, np.zeros(4, np.float32)),
        "layer": nir.IF(np.ones(4, np.float32), threshold),
        "head": nir.Affine(np.float32(head), np.zeros(3, np.float32)),
        "output": nir.Output(np.array([3])),
    }
    graph = nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False)
    return SpikingNetwork(graph, {"layer": NeuronSpec(threshold, threshold / np.float32(2), levels=8)}, num_timesteps=4)


HEAD = np.random.default_rng(2).normal(size=(3, 4))


def quantised(of: SpikingNetwork) -> SpikingNetwork:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResolutionWarning)
        return quantise(of, IMAGES)


def said(of: SpikingNetwork, **options: Any) -> str:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        quantise(of, IMAGES, **options)
    return "\n".join(str(one.message) for one in seen if issubclass(one.category, ResolutionWarning))


def test_nothing_is_said_of_a_network_that_integers_hold() -> None:
    assert said(network(1.0, HEAD)) == ""


def test_thresholds_three_orders_apart_are_named_with_a_fix_that_helps() -> None:
    scales = np.array([1.0, 0.001, 1.0, 0.001], np.float32)
    weight = np.float32(np.random.default_rng(1).normal(size=(4, 6))) * scales[:, None]
    apart = network(scales, HEAD, weight)
    words = said(apart)
    assert "Node 'dense': all weights of channel 1, 3 of 4 became 0" in words and "--quantisation per-channel" in words
    assert said(apart, per_channel=True) == ""


def test_a_threshold_of_fewer_integers_than_levels() -> None:
    low = network([1.0, 1e-4, 1.0, 1.0], HEAD)
    counts = np.sort(quantised(low).neurons["layer"].threshold)
    assert counts[0] < 8 <= counts[1]
    assert f"Layer 'layer': the threshold of channel 1 of 4 is {counts[0]:.0f} in integers, for 8 levels" in said(low)


def test_a_head_of_zeros_and_one_with_a_huge_weight() -> None:
    assert "Node 'head': all of its weights are 0" in said(network(1.0, np.zeros((3, 4))))
    huge = HEAD.copy()
    huge[1, 2] = 1e6
    assert "Node 'head': all weights of channel 0, 2 of 3 became 0 in integers" in said(network(1.0, huge))
    with pytest.warns(ResolutionWarning, match="The classes of a readout share one scale"):
        quantise(network(1.0, huge), IMAGES)
