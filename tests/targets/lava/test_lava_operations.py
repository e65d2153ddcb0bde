"""The worker's synapses in numpy against PyTorch, and what Lava's own convolution is given against them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from random_networks import dyadic

from cos_export.errors import NetworkError
from cos_export.network.graph import output_shape
from cos_export.simulation.synapses import synapse
from targets.lava.lowering import lower_synapse


def _reference(node: nir.NIRNode, values: NDArray[Any]) -> NDArray[Any]:
    apply = synapse(node, lambda array: torch.as_tensor(np.asarray(array)).to(torch.float32))
    return apply(torch.from_numpy(values)).numpy()


def _computed(modules: SimpleNamespace, node: nir.NIRNode, values: NDArray[Any]) -> NDArray[Any]:
    lowered = lower_synapse(node)
    settings = {**lowered.settings, "shape": output_shape(node, values.shape[1:])}
    return np.asarray(modules.operations.create(lowered.kind, settings, lowered.arrays)(values))


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nir.Conv2d, NDArray[Any]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    groups = draw(st.sampled_from([1, 2, 4]))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 3)))
    padding = draw(st.one_of(st.just("same"), st.tuples(st.integers(0, 2), st.integers(0, 3))))
    stride = (1, 1) if padding == "same" else draw(st.tuples(st.integers(1, 3), st.integers(1, 2)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 3)))
    weight = dyadic(rng, groups * draw(st.integers(1, 2)), draw(st.integers(1, 2)), *kernel)
    node = nir.Conv2d(None, weight, stride, padding, dilation, groups, dyadic(rng, len(weight)))
    return node, dyadic(rng, draw(st.integers(1, 3)), weight.shape[1] * groups, 9, 8)


@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_convolution_is_that_of_torch(worker_modules: SimpleNamespace, drawn: tuple[nir.Conv2d, NDArray[Any]]) -> None:
    node, values = drawn
    np.testing.assert_array_equal(_computed(worker_modules, node, values), _reference(node, values))


@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_the_arguments_for_lava_mean_the_same_convolution(
    worker_modules: SimpleNamespace, drawn: tuple[nir.Conv2d, NDArray[Any]]
) -> None:
    """Lava pads evenly and mirrors; read back by that, its arguments must give the same sums."""
    node, values = drawn
    np.testing.assert_array_equal(_by_lavas_rules(worker_modules, node, values), _without_bias(node, values))


def _without_bias(node: Any, values: NDArray[Any]) -> NDArray[Any]:
    return _reference(node, values) - np.reshape(node.bias, (-1, *[1] * (values.ndim - 2)))


def _by_lavas_rules(modules: SimpleNamespace, node: nir.NIRNode, values: NDArray[Any]) -> NDArray[Any]:
    lowered = lower_synapse(node)
    stored = SimpleNamespace(
        name="node", settings=lowered.settings, array=lambda key: lowered.arrays.get(key), kind=lowered.kind
    )
    arguments = getattr(modules.lava_arguments, lowered.kind)(stored, values.shape[1:])
    assert arguments["groups"] <= 127
    planes = values if values.ndim == 4 else values[:, :, None]
    assert arguments["input_shape"] == planes.shape[:0:-1]
    even = modules.operations.Convolution(
        arguments["weight"].transpose(0, 3, 2, 1)[:, :, ::-1, ::-1],
        None,
        stride=arguments["stride"][::-1],
        padding=[(pad, pad) for pad in arguments["padding"][::-1]],
        dilation=arguments["dilation"][::-1],
        groups=arguments["groups"],
    )
    return np.reshape(even(planes), (len(values), -1, *output_shape(node, values.shape[1:])[1:]))


@pytest.mark.parametrize(
    ("padding", "stride", "dilation", "groups"), [(0, 1, 1, 1), (2, 2, 1, 2), (1, 1, 3, 2), ("same", 1, 1, 1)]
)
def test_convolution_over_one_axis(
    worker_modules: SimpleNamespace, padding: Any, stride: int, dilation: int, groups: int
) -> None:
    rng = np.random.default_rng(1)
    weight, bias = dyadic(rng, 6, 4 // groups, 4), dyadic(rng, 6)
    node = nir.Conv1d(None, weight, stride, padding, dilation, groups, bias)
    values = dyadic(rng, 3, 4, 15)
    np.testing.assert_array_equal(_computed(worker_modules, node, values), _reference(node, values))
    np.testing.assert_array_equal(_by_lavas_rules(worker_modules, node, values), _without_bias(node, values))


def test_more_groups_than_lava_can_count_are_merged(worker_modules: SimpleNamespace) -> None:
    rng = np.random.default_rng(2)
    node = nir.Conv2d(None, dyadic(rng, 520, 2, 2, 2), 1, 0, 1, 260, np.zeros(520, np.float32))
    values = dyadic(rng, 1, 520, 3, 3)
    np.testing.assert_array_equal(_by_lavas_rules(worker_modules, node, values), _reference(node, values))


def test_a_kernel_that_lava_cannot_hold_is_named(worker_modules: SimpleNamespace) -> None:
    node = nir.Conv2d(None, np.ones((1, 1, 1, 130), np.float32), 1, 0, 1, 1, np.zeros(1, np.float32))
    with pytest.raises(worker_modules.job.JobError, match=r"Node 'node': Lava's convolution holds.* 130 here"):
        _by_lavas_rules(worker_modules, node, np.ones((1, 1, 1, 140), np.float32))


def test_convolution_reuses_nothing_of_the_call_before(worker_modules: SimpleNamespace) -> None:
    rng = np.random.default_rng(3)
    lowered = lower_synapse(nir.Conv2d(None, dyadic(rng, 2, 2, 3, 3), 1, 1, 1, 1, dyadic(rng, 2)))
    apply = worker_modules.operations.create(lowered.kind, lowered.settings, lowered.arrays)
    first, second = dyadic(rng, 2, 2, 5, 5), dyadic(rng, 3, 2, 7, 4)
    before = apply(first)
    kept = before.copy()
    apply(second)
    np.testing.assert_array_equal(before, kept)
    np.testing.assert_array_equal(apply(first), kept)


@pytest.mark.parametrize("kind", [nir.SumPool2d, nir.AvgPool2d])
@pytest.mark.parametrize(("window", "stride", "padding"), [((2, 2), (2, 2), (0, 0)), ((4, 2), (1, 3), (2, 1))])
def test_pooling_is_that_of_torch(
    worker_modules: SimpleNamespace, kind: Any, window: Any, stride: Any, padding: Any
) -> None:
    node = kind(np.array(window), np.array(stride), np.array(padding))
    values = dyadic(np.random.default_rng(4), 2, 3, 7, 8)
    np.testing.assert_array_equal(_computed(worker_modules, node, values), _reference(node, values))
    np.testing.assert_array_equal(_by_lavas_rules(worker_modules, node, values), _reference(node, values))


def test_affine_linear_scale_and_flatten_are_those_of_torch(worker_modules: SimpleNamespace) -> None:
    rng = np.random.default_rng(5)
    rows, planes = dyadic(rng, 3, 6), dyadic(rng, 3, 2, 3, 4)
    for node, values in [
        (nir.Affine(dyadic(rng, 4, 6), dyadic(rng, 4)), rows),
        (nir.Linear(dyadic(rng, 4, 6)), rows),
        (nir.Scale(dyadic(rng, 2, 3, 4)), planes),
        (nir.Flatten(None, -3, -1), planes),
        (nir.Flatten(None, 1, 2), planes),
    ]:
        np.testing.assert_array_equal(_computed(worker_modules, node, values), _reference(node, values))


def test_an_unknown_kind_and_an_unknown_node_are_refused(worker_modules: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="'delay' is not a synapse"):
        worker_modules.operations.create("delay", {}, {})
    with pytest.raises(NetworkError, match="type Delay cannot be run in Lava"):
        lower_synapse(nir.Delay(np.ones(3)))
