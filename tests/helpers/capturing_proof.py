"""Captures a module whose parameters are all random, and compares what it and the network compute."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn

from calibration.thresholds import relu_thresholds
from cos_export.capturing import capture
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.qcfs import QCFS
from cos_export.simulation import ann_logits


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, batch-norm statistics and thresholds, so that no factor can be forgotten unseen."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.2)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            if module.affine:
                module.weight.data.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
                module.bias.data.copy_(torch.randn(module.num_features, generator=generator) * 0.2)
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            fan = module.weight[0].numel()
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator) * (2 / fan) ** 0.5)
        if isinstance(module, QCFS):
            module.threshold.data.copy_(torch.rand((), generator=generator) * 0.5 + 0.2)
    return model


def logits(model: nn.Module, x: Tensor) -> FloatArray:
    with torch.no_grad():
        result: FloatArray = model.eval()(x).numpy()
    return result


def compare(network: SpikingNetwork, model: nn.Module, x: Tensor, tolerance: float = 3e-5) -> None:
    """The network with activations in place of spikes gives what the module gives, and is plain NIR."""
    expected, actual = logits(model, x), ann_logits(network, x, device="cpu")
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())
    assert np.ptp(expected, axis=0).max() > 1e-2 * np.abs(expected).max(), "the test network is dead"
    nir.NIRGraph(network.graph.nodes, network.graph.edges, type_check=True)
    assert all(name.isidentifier() for name in network.graph.nodes)
    assert len(set(network.graph.edges)) == len(network.graph.edges)


def prove_relu(
    model: nn.Module, shape: tuple[int, ...] = (2, 8, 8), *, per_channel: bool = False, seed: int = 0, **options: Any
) -> SpikingNetwork:
    """Captures a network of ReLUs with the maximum of each as threshold, so that nothing is clipped, and compares."""
    torch.manual_seed(seed)
    randomise(model.eval(), seed)
    x = torch.rand(5, *shape) * 2 - 0.5
    thresholds = relu_thresholds(model, x, "maximum", per_channel=per_channel, device="cpu", **options)
    # Rounding in another order must not be clipped either.
    raised = {key: threshold * np.float32(1.01) for key, threshold in thresholds.items()}
    network = capture(model, x, thresholds=raised, **options)
    if "max_pool" not in options:
        compare(network, model, x)
    return network


def kinds(network: SpikingNetwork) -> list[str]:
    return [type(network.graph.nodes[name]).__name__ for name in network.order]
