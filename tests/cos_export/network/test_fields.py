"""Every field of every node: what cannot be a network is refused by node and field, as PyTorch refuses it."""

import copy
from itertools import pairwise

import nir
import numpy as np
import pytest
import random_networks as build
import torch
from torch.nn import functional

from cos_export.errors import NetworkError
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.network.graph import output_shape, shapes
from cos_export.network.order import topological_order


def _nodes():
    rng = np.random.default_rng(0)
    return {
        "input": nir.Input(np.array([2, 8, 6])),
        "conv": build.conv2d(rng, 2, 4),
        "scale": nir.Scale(np.ones((4, 8, 6), np.float32)),
        "if": nir.IF(np.ones((4, 8, 6), np.float32), np.ones((4, 8, 6), np.float32)),
        "sum": build.pool(nir.SumPool2d),
        "average": build.pool(nir.AvgPool2d, (2, 1)),
        "flatten": nir.Flatten(None, 0, -1),
        "affine": build.affine(rng, 24, 5),
        "linear": nir.Linear(np.ones((3, 5), np.float32)),
        "output": nir.Output(np.array([3])),
    }


def _network(nodes):
    spec = NeuronSpec(np.ones((4, 8, 6), np.float32), np.zeros((4, 8, 6), np.float32))
    return SpikingNetwork(nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False), {"if": spec})


def test_the_nodes_as_they_are_make_a_network():
    assert _network(_nodes()).output_shape == (3,)


FLOATS = [
    ("conv", "weight"),
    ("conv", "bias"),
    ("scale", "scale"),
    ("if", "r"),
    ("if", "v_threshold"),
    ("if", "v_reset"),
    ("affine", "weight"),
    ("affine", "bias"),
    ("linear", "weight"),
]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize(("name", "field"), FLOATS)
def test_a_number_that_is_not_finite_is_named(name, field, value):
    nodes = _nodes()
    array = np.array(getattr(nodes[name], field), np.float64)
    array.flat[array.size // 2] = value
    setattr(nodes[name], field, array)
    with pytest.raises(NetworkError, match=rf"'{name}' \(\w+\): {field} holds"):
        _network(nodes)


@pytest.mark.parametrize(
    "value",
    [
        "text",
        b"bytes",
        np.zeros((4, 2, 3, 3), complex),
        np.zeros(3, object),
        np.zeros(3, [("a", "f4")]),
        None,
        np.zeros((0, 2)),
        [[1.0], [1.0, 2.0]],
    ],
)
@pytest.mark.parametrize(("name", "field"), FLOATS)
def test_what_is_not_an_array_of_numbers_is_named(name, field, value):
    nodes = _nodes()
    setattr(nodes[name], field, value)
    with pytest.raises(NetworkError, match=rf"'{name}' \(\w+\): {field} "):
        _network(nodes)


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("conv", "stride", [0, -1, 1.5, np.nan, "1", None, (1, 2, 3), (), True, 2**40, np.ones((2, 1))]),
        ("conv", "dilation", [0, -1, 1.5, np.inf, "1", None, (1, 2, 3)]),
        ("conv", "padding", [-1, 0.5, np.nan, None, (1, 2, 3), "reflect", b"\xff"]),
        ("conv", "groups", [0, -1, 1.5, 3, np.nan, "1", None, (1, 1), [1]]),
        ("conv", "bias", [np.ones(3), np.ones((4, 1)), 1.0]),
        ("conv", "weight", [np.ones((4, 2, 3)), np.ones((4, 2, 3, 3, 1)), np.ones(4), np.ones((4, 2, 11, 3))]),
        ("sum", "kernel_size", [0, -2, 1.5, np.nan, "2", None, (2, 2, 2), (9, 2)]),
        ("sum", "stride", [0, -1, 0.5, (2, 0), None]),
        ("sum", "padding", [-1, 2, (1, 2), 0.5, None]),
        ("average", "padding", [1, (0, 1), -1]),
        ("flatten", "start_dim", [3, -4, 0.5, "0", None, 2**40]),
        ("flatten", "end_dim", [3, -4, np.nan, -3.5, np.array([-1])]),
        ("affine", "weight", [np.ones(24), np.ones((5, 24, 1))]),
        ("affine", "bias", [np.ones(4), np.ones((5, 1)), 0.0]),
        ("linear", "weight", [np.ones((3, 4))]),
        ("scale", "scale", [np.ones((4, 8)), 1.0]),
    ],
)
def test_a_field_that_cannot_be_is_named(name, field, values):
    for value in values:
        nodes = _nodes()
        setattr(nodes[name], field, value)
        with pytest.raises(NetworkError, match=rf"Node '{name}' \(\w+\): "):
            _network(nodes)


def test_flatten_ends_the_wrong_way_round():
    with pytest.raises(NetworkError, match="start_dim 2 lies behind end_dim 1"):
        output_shape(nir.Flatten(None, 2, 1), (2, 3, 4))


@pytest.mark.parametrize("shape", [(), (0, 8, 6), (-1, 8, 6), (2, 8.5, 6), (2, 2**20, 2**20), (np.nan,), "abc", None])
def test_a_shape_of_the_input_that_cannot_be(shape):
    nodes = _nodes()
    nodes["input"].input_type = {"input": None if shape is None else np.array(shape)}
    with pytest.raises(NetworkError, match=r"Node 'input' \(Input\): "):
        _network(nodes)


def test_what_pads_to_more_than_any_memory():
    with pytest.raises(NetworkError, match="numbers of shape"):
        output_shape(build.conv2d(np.random.default_rng(0), 2, 4, padding=10**6), (2, 8, 8))


@pytest.mark.parametrize(("kernel", "padding"), [(k, p) for k in range(1, 6) for p in range(4)])
def test_a_pool_is_refused_where_pytorch_refuses_it(kernel, padding):
    node, image = build.pool(nir.AvgPool2d, kernel, 1, padding), torch.zeros(1, 1, 4, 4)
    try:
        expected = tuple(functional.avg_pool2d(image, kernel, 1, padding).shape[1:])
    except RuntimeError:
        with pytest.raises(NetworkError):
            output_shape(node, (1, 4, 4))
    else:
        assert output_shape(node, (1, 4, 4)) == expected


def test_groups_that_do_not_divide_are_those_that_pytorch_refuses():
    for groups in range(1, 9):
        weight = torch.zeros(8, 2, 1, 1)
        node = nir.Conv2d(None, weight.numpy(), 1, 0, 1, groups, np.zeros(8, np.float32))
        if 8 % groups == 0:
            made = functional.conv2d(torch.zeros(1, 2 * groups, 3, 3), weight, groups=groups)
            assert output_shape(node, (2 * groups, 3, 3)) == tuple(made.shape[1:])
        else:
            with pytest.raises(RuntimeError):
                functional.conv2d(torch.zeros(1, 2 * groups, 3, 3), weight, groups=groups)
            with pytest.raises(NetworkError, match="does not divide"):
                output_shape(node, (2 * groups, 3, 3))


def test_an_edge_listed_twice_is_refused_by_name():
    nodes = _nodes()
    edges = [*pairwise(nodes), ("conv", "scale")]
    network = _network(nodes)
    graph = copy.copy(network.graph)
    graph.edges = edges
    with pytest.raises(NetworkError, match="edge 'conv' -> 'scale' is listed 2 times"):
        SpikingNetwork(graph, network.neurons)


def test_a_resistance_that_no_run_would_apply():
    nodes = _nodes()
    nodes["if"].r = np.full((4, 8, 6), 0.5, np.float32)
    with pytest.raises(NetworkError, match=r"'if' \(IF\): r must be 1"):
        _network(nodes)


@pytest.mark.parametrize("field", ["threshold", "v_init", "v_reset", "bias", "scale"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_neurons_hold_finite_numbers(field, value):
    shape = {"bias": (3, 2), "scale": (2,)}.get(field, (2, 4))
    given = {"threshold": np.ones((2, 4)), "v_init": np.zeros((2, 4))} | {field: np.full(shape, value)}
    with pytest.raises(NetworkError, match=f"{field} holds"):
        NeuronSpec(**given, reset="value" if field == "v_reset" else "subtract")


@pytest.mark.parametrize(
    ("threshold", "message"),
    [(np.float32(1), "must have an axis"), (np.ones((2, 0)), "no elements"), ([1e-50], "float32")],
)
def test_thresholds_that_are_not_a_layer(threshold, message):
    with pytest.raises(NetworkError, match=message):
        NeuronSpec(threshold, np.zeros(np.shape(threshold)))


@pytest.mark.parametrize(
    ("edges", "names", "message"),
    [
        ([("a", "b", "c")], "abc", r"edge \('a', 'b', 'c'\): it must be a pair"),
        ([None], "abc", "edge None"),
        ([([], "a")], "abc", "must be a pair of names"),
        (["ab"], "abc", "edge 'ab'"),
        ([], (1, 2), "a node 1: the name of a node must be a string"),
    ],
)
def test_wiring_that_is_not_between_names(edges, names, message):
    with pytest.raises(NetworkError, match=message):
        topological_order(nir.NIRGraph(dict.fromkeys(names, nir.Scale(np.ones(1))), edges, type_check=False))


@pytest.mark.parametrize(
    "changes",
    [
        {"levels": 2.5},
        {"levels": np.nan},
        {"condition": "<"},
        {"reset": "hard"},
        {"silent": [0.5]},
        {"silent": [np.nan]},
        {"threshold": np.ma.masked_array([1.0], mask=[True])},
    ],
)
def test_neurons_that_cannot_be(changes):
    with pytest.raises(NetworkError, match=next(iter(changes))):
        NeuronSpec(**({"threshold": np.ones(1), "v_init": np.zeros(1)} | changes))


def test_neurons_that_are_none():
    network = _network(_nodes())
    with pytest.raises(NetworkError, match="'if' has NoneType for its neurons"):
        SpikingNetwork(network.graph, {"if": None})  # type: ignore[dict-item]


def test_a_graph_of_20_000_nodes_is_ordered():
    count = 20_000
    nodes = {"input": nir.Input(np.array([1]))} | {f"scale{i}": nir.Scale(np.ones(1)) for i in range(count)}
    nodes["output"] = nir.Output(np.array([1]))
    wide = [("input", f"scale{i}") for i in range(count)] + [(f"scale{i}", "output") for i in range(count)]
    graph = nir.NIRGraph(nodes, wide, type_check=False)
    order = topological_order(graph)
    assert (order[0], order[-1], len(order)) == ("input", "output", count + 2)
    graph.edges = [*pairwise(nodes), ("scale19999", "scale0")]
    with pytest.raises(NetworkError, match="and 19981 more") as raised:
        topological_order(graph)
    assert len(str(raised.value)) < 500
    graph.edges = list(pairwise(nodes))
    feeds = {name: () if name == "input" else (before,) for before, name in pairwise(["", *nodes])}
    assert set(shapes(graph, topological_order(graph), feeds).values()) == {(1,)}
