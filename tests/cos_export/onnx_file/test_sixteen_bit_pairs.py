"""The step graph in integers on processors that add two products of 8 bits in 16 bits, and saturate (VPMADDUBSW)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import nir
import numpy as np
import onnx
import pytest
import random_networks as build
import torch
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun
from step_loop import in_evaluator, in_runtime, loop, rounded

from cos_export.network import Quantisation, SpikingNetwork
from cos_export.onnx_file import build_step_model
from cos_export.onnx_file.step_interface import step_interface
from cos_export.simulation import simulate


def saturating(values: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """(samples, k) of uint8 times (k, outputs) of int8: two neighbouring products are one number of 16 bits."""
    assert values.dtype == np.uint8 and weight.dtype == np.int8
    odd = len(weight) % 2
    left = np.pad(values.astype(np.int64), ((0, 0), (0, odd)))
    right = np.pad(weight.astype(np.int64), ((0, odd), (0, 0)))
    products = left[:, :, None] * right[None]
    pairs = products[:, 0::2] + products[:, 1::2]
    total: NDArray[Any] = pairs.clip(-(2**15), 2**15 - 1).sum(1).astype(np.int32)
    return total


class MatMulInteger(OpRun):
    op_domain = ""

    def _run(self, values: Any, weight: Any, zero: Any = None, other: Any = None) -> tuple[Any]:
        assert other is None
        moved = 0 if zero is None else int(zero)
        return (saturating(values, weight) - moved * weight.sum(0, dtype=np.int32),)


class ConvInteger(OpRun):
    op_domain = ""

    def _run(self, values: Any, weight: Any, zero: Any = None, other: Any = None, **geometry: Any) -> tuple[Any]:
        assert other is None and geometry["auto_pad"] == "NOTSET"
        moved, groups, pads = 0 if zero is None else int(zero), geometry["group"] or 1, geometry["pads"]
        around = [pads[1], pads[3], pads[0], pads[2]]
        padded = torch.nn.functional.pad(torch.from_numpy(values.astype(np.float64)), around, value=moved)
        dilation, strides = (tuple(geometry[name] or (1, 1)) for name in ("dilations", "strides"))
        columns = torch.nn.functional.unfold(padded, weight.shape[2:], dilation=dilation, stride=strides)
        outputs = []
        for part, rows in zip(columns.chunk(groups, 1), np.split(weight, groups), strict=True):
            matrix = rows.reshape(len(rows), -1).T
            flat = part.movedim(1, 2).flatten(0, 1).numpy().astype(np.uint8)
            found = saturating(flat, matrix) - moved * matrix.sum(0, dtype=np.int32)
            outputs.append(found.reshape(len(values), -1, len(rows)))
        spread = [
            (size - step * (kernel - 1) - 1) // stride + 1
            for size, kernel, step, stride in zip(padded.shape[2:], weight.shape[2:], dilation, strides, strict=True)
        ]
        return (np.concatenate(outputs, 2).transpose(0, 2, 1).reshape(len(values), len(weight), *spread),)


def dense(rng: np.random.Generator) -> SpikingNetwork:
    return build.sequential(rng, (8,), [build.affine(rng, 8, 9), "if", build.affine(rng, 9, 7), "if"])


def convolutional(rng: np.random.Generator) -> SpikingNetwork:
    """Convolutions of the input and of the sums over windows, one in groups, and a spike added to an input."""
    layers = [build.conv2d(rng, 4, 4), "if", build.pool(nir.SumPool2d, 2), build.conv2d(rng, 4, 6, (3, 3), groups=2)]
    network = build.sequential(rng, (4, 6, 6), [*layers, "if"])
    skip = next(name for name in network.order if isinstance(network.graph.nodes[name], nir.SumPool2d))
    graph = nir.NIRGraph(dict(network.graph.nodes), [*network.graph.edges, ("input", skip)], type_check=False)
    return replace(network, graph=graph)


def with_extreme_integers(network: SpikingNetwork, rng: np.random.Generator, low: int, high: int) -> SpikingNetwork:
    """The largest weights, and inputs from low to high."""
    nodes = dict(network.graph.nodes)
    for node in nodes.values():
        if getattr(node, "weight", None) is not None:
            shape = np.shape(node.weight)
            # Neighbours agree, so that their products add up, and pairs do not, so that sums stay near the thresholds.
            sign = rng.choice([-1, 1], (math.prod(shape) + 1) // 2).repeat(2)[: math.prod(shape)].reshape(shape)
            node.weight = np.where(sign > 0, 127, -128)
            node.weight = np.where(rng.random(shape) < 0.1, rng.integers(-128, 128, shape), node.weight)
            node.weight = node.weight.astype(np.float32)
            node.bias = rng.integers(-500, 501, shape[0]).astype(np.float32)
    specs = {
        name: replace(
            spec,
            threshold=rng.integers(200, 4000, spec.shape).astype(np.float32),
            v_init=rng.integers(-300, 301, spec.shape).astype(np.float32) + np.float32(0.5),
            v_reset=None,
            reset="subtract",
            bias=None,
        )
        for name, spec in network.neurons.items()
    }
    for name, spec in specs.items():
        nodes[name] = build.spiking_node(spec)
    graph = nir.NIRGraph(nodes, list(network.graph.edges), type_check=False)
    return replace(network, graph=graph, neurons=specs, quantisation=Quantisation(1.0, low, high, 0.5))


def test_two_products_of_eight_bits_do_not_fit() -> None:
    """What is emulated here: with whole bytes a sum is off, and with seven bits it is not."""
    weight = np.array([[127], [127], [-128], [-128]], np.int8)
    for byte, expected in ((255, 32767 - 32768), (127, 127 * -2)):
        assert saturating(np.full((1, 4), byte, np.uint8), weight).item() == expected


@pytest.mark.parametrize("kind", [dense, convolutional], ids=["dense", "convolutional"])
@pytest.mark.parametrize(("low", "high"), [(0, 255), (-128, 127), (0, 127), (0, 16)])
@pytest.mark.parametrize("windows", [False, True])
def test_no_pair_of_products_saturates(kind: Any, low: int, high: int, windows: bool) -> None:
    rng = np.random.default_rng(high)
    network = with_extreme_integers(kind(rng), rng, low, high)
    network = replace(network, schedule="layerwise") if windows else network
    images = rng.choice([low, high, high - 1], (4, *network.input_shape)).astype(np.float32)
    expected = simulate(network, images, 3, device="cpu")
    model, about = build_step_model(network, 3), step_interface(network, 3).to_dict()
    for run in (in_evaluator(model, [MatMulInteger, ConvInteger]), in_runtime(model)):
        fired, logits = loop(run, about, rounded(network, images))
        for name in network.layers:
            np.testing.assert_array_equal(fired[name], expected.spikes[name], err_msg=name)
        np.testing.assert_allclose(logits, expected.logits[-1], rtol=1e-6)
    operators = {node.op_type for node in model.graph.node}
    assert operators >= ({"MatMulInteger"} if kind is dense else {"MatMulInteger", "ConvInteger"})
    assert onnx.TensorProto.FLOAT not in {entry.data_type for entry in model.graph.initializer}
