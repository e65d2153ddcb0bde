import nir
import numpy as np
import pytest
import random_networks as build
import torch
from torch.nn import functional

from cos_export.errors import NetworkError
from cos_export.network.graph import convolution, output_shape, pooling, shapes
from cos_export.network.order import predecessors, topological_order


@pytest.mark.parametrize("kernel", [(3, 3), (1, 4), (5, 2)])
@pytest.mark.parametrize("stride", [1, (2, 1), np.array([1, 3])])
@pytest.mark.parametrize("padding", [0, (1, 0), np.array([0, 2])])
@pytest.mark.parametrize(("dilation", "groups"), [(1, 1), ((1, 2), 2)])
def test_conv2d_shape_is_that_of_torch(kernel, stride, padding, dilation, groups):
    weight = np.zeros((4, 4 // groups, *kernel), np.float32)
    node = nir.Conv2d(None, weight, stride, padding, dilation, groups, np.zeros(4, np.float32))
    geometry = convolution(node)
    made = functional.conv2d(
        torch.zeros(1, 4, 11, 13),
        torch.from_numpy(weight),
        stride=geometry.stride,
        padding=[p for p, _ in geometry.padding],
        dilation=geometry.dilation,
        groups=groups,
    )
    assert output_shape(node, (4, 11, 13)) == tuple(made.shape[1:])


@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (1, 5)])
@pytest.mark.parametrize("spelling", ["same", b"same", np.array(b"same", object)])
def test_same_padding_keeps_the_size(kernel, spelling):
    node = nir.Conv2d(None, np.zeros((1, 1, *kernel)), 1, "same", (1, 2), 1, np.zeros(1))
    node.padding = spelling
    assert output_shape(node, (1, 7, 9)) == (1, 7, 9)
    before, after = convolution(node).padding[0]
    assert after - before in (0, 1)


def test_same_padding_with_a_stride_is_refused():
    with pytest.raises(NetworkError, match="needs stride 1"):
        convolution(nir.Conv2d(None, np.zeros((1, 1, 3, 3)), 2, "same", 1, 1, np.zeros(1)))


def test_conv1d_shape_is_that_of_torch():
    node = build.conv1d(np.random.default_rng(0), 4, 6, 5, stride=2, padding=3, dilation=2, groups=2)
    made = functional.conv1d(
        torch.zeros(1, 4, 17), torch.from_numpy(node.weight), stride=2, padding=3, dilation=2, groups=2
    )
    assert output_shape(node, (4, 17)) == tuple(made.shape[1:])


@pytest.mark.parametrize("kind", [nir.SumPool2d, nir.AvgPool2d])
@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1), ((2, 3), 1, 1), (3, 3, 0)])
def test_pool_shape_is_that_of_torch(kind, size, stride, padding):
    node = build.pool(kind, size, stride, padding)
    window = pooling(node)
    made = functional.avg_pool2d(torch.zeros(1, 2, 9, 10), window.kernel, window.stride, window.padding)
    assert output_shape(node, (2, 9, 10)) == tuple(made.shape[1:])


def test_pool_of_plain_integers():
    assert output_shape(nir.SumPool2d(2, 2, 0), (3, 8, 6)) == (3, 4, 3)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0, -1, (24,)), (1, -1, (2, 12)), (-3, -2, (6, 4)), (-3, -1, (24,)), (1, 1, (2, 3, 4))],
)
def test_flatten_shape(start, end, expected):
    assert output_shape(nir.Flatten(None, start, end), (2, 3, 4)) == expected


@pytest.mark.parametrize(
    ("node", "shape", "message"),
    [
        (nir.Affine(np.zeros((3, 5)), np.zeros(3)), (4,), r"takes shape \(5,\), and gets \(4,\)"),
        (nir.Linear(np.zeros((2, 3, 5))), (5,), "weight must be"),
        (nir.Conv2d(None, np.zeros((1, 2, 3, 3)), 1, 0, 1, 1, np.zeros(1)), (3, 8, 8), "takes 2 channels"),
        (nir.Conv2d(None, np.zeros((1, 2, 9, 3)), 1, 0, 1, 1, np.zeros(1)), (2, 8, 8), "does not fit"),
        (nir.SumPool2d(2, 2, 0), (8,), "channels, height, width"),
        (nir.LIF(*[np.ones(2)] * 4), (2,), "type LIF cannot be run"),
    ],
)
def test_unfit_nodes_are_refused(node, shape, message):
    with pytest.raises(NetworkError, match=message):
        output_shape(node, shape)


def _shapes(nodes, edges):
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    return shapes(graph, topological_order(graph), predecessors(graph))


def test_edges_of_different_shapes_into_one_node():
    nodes = {"a": nir.Input(np.array([2])), "b": nir.Linear(np.zeros((3, 2))), "c": nir.Output(np.array([2]))}
    with pytest.raises(NetworkError, match=r"'c' adds edges of different shapes: 'a' \(2,\), 'b' \(3,\)"):
        _shapes(nodes, [("a", "b"), ("a", "c"), ("b", "c")])


def test_node_without_an_edge_into_it():
    nodes = {"a": nir.Input(np.array([2])), "b": nir.Linear(np.zeros((3, 2)))}
    with pytest.raises(NetworkError, match=r"'b' \(Linear\) has no edge into it"):
        _shapes(nodes, [])


def test_declared_output_shape_is_checked():
    nodes = {"a": nir.Input(np.array([2])), "c": nir.Output(np.array([3]))}
    with pytest.raises(NetworkError, match=r"'c' \(Output\): it takes shape"):
        _shapes(nodes, [("a", "c")])


def test_residual_network():
    network = build.residual(np.random.default_rng(0))
    assert network.layers == ("if1", "if2")
    assert network.predecessors["if2"] == ("analog", "conv2", "shortcut")
    assert network.shapes["if2"] == (4, 6, 5)
    assert network.output_shape == (3,)
