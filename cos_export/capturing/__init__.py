"""Turns a trained PyTorch module into a network of integrate-and-fire neurons.

The module is traced with `torch.export`, and its graph is walked once. Every wire from a spiking node carries
unit spikes, so the threshold theta of a layer is a factor that waits until a synapse takes it into its weights;
the divisor of an average pooling waits likewise, and so do the places of channels that were joined, cut or
re-ordered. Where no synapse follows (a residual's identity path, an addition, the output), one is made that
carries what waits, alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from numpy.typing import ArrayLike
from torch import nn

from cos_export.capturing.checking import CheckResult, check_model, inspect_module
from cos_export.capturing.findings import Finding, explain
from cos_export.capturing.operators.rectifiers import check_keys
from cos_export.capturing.options import MaxPool, Options, check_options
from cos_export.capturing.preparing import traced_module
from cos_export.capturing.tail import Tail
from cos_export.capturing.tracing import Traced
from cos_export.capturing.walk import walk
from cos_export.datasets import Images
from cos_export.errors import CaptureError
from cos_export.network import SpikingNetwork, with_normalisation_of

__all__ = ["Captured", "CheckResult", "Finding", "capture", "captured", "check_model", "inspect_module"]


@dataclass(frozen=True)
class Captured:
    """What a module became.

    Attributes:
        network: The spiking network.
        unbounded: Its layers that stand for a ReLU without an upper bound, which they clip at their threshold.
        replaced: Whether an operation was replaced by another function, such as max pooling by average pooling.
        tail: What the module does to the network's readout at its end.
    """

    network: SpikingNetwork
    unbounded: frozenset[str]
    replaced: bool
    tail: Tail = field(default_factory=Tail)


def capture(
    model: nn.Module,
    example_input: Images,
    *,
    levels: int | None = None,
    thresholds: Mapping[str, ArrayLike] | None = None,
    max_pool: MaxPool = "exact",
) -> SpikingNetwork:
    """The spiking network of a module whose activations are QCFS or ReLU, with v(0) = theta / 2.

    A `QCFS`, ours or one that computes the same, has theta = lambda; a ReLU with an upper bound b has theta = b; any
    other ReLU has the threshold that `thresholds` holds for it, and is clipped there. For each layer
    `cos_export.simulation.ann_logits` computes on the network what the module computes in eval mode, as long as no
    ReLU exceeds its threshold. Weights are folded in float64 and rounded to float32 once.

    Args:
        model: From one float32 tensor (batch, ...) to logits (batch, classes), or one tensor of another shape, which
            is flattened; alone, or in a tuple or dictionary. It is left untouched.
        example_input: Images of the right shape, (batch, ...), any batch size, in any form that `cos_export.simulate`
            takes; their values do not matter. The network takes on the normalisation and class names of a `Dataset`.
        levels: L of quantised activations of the user's own whose attributes do not say it; it only names them,
            for L is always checked against what they compute.
        thresholds: For each ReLU, by its module's path ("layer1.0.relu", and "layer1.0.relu@1" for its second
            call), one threshold or one for each channel, as `cos_export.relu_thresholds` finds them.
        max_pool: Max pooling is "exact", neurons over differences of spikes; or replaced by the "average" over the same
            windows, another function, so that the network wants fine-tuning with it; or to "refuse".

    Returns:
        The network, not calibrated.

    Raises:
        CaptureError: The module holds what has no spiking equivalent. The message lists all of it, with the
            path of each submodule, the source line, and what to do.
        InputError: The example is not one tensor of images, or an option is out of range.
    """
    return captured(model, example_input, check_options(levels, thresholds, max_pool)).network


def captured(model: nn.Module, example_input: Images, options: Options, traced: Traced | None = None) -> Captured:
    """`capture`, with what is known of the network besides; arguments and errors are the same.

    Args:
        model: The module.
        example_input: Images.
        options: What the user chose.
        traced: The module's graph, where it is known already.
    """
    graph = traced or traced_module(model, example_input, options)
    check_keys(graph, options)
    walked = walk(graph, options)
    if walked.network is None:
        raise CaptureError(explain(type(model).__name__, walked.findings))
    network = with_normalisation_of(walked.network, example_input)
    return Captured(network, walked.unbounded, walked.replaced, Tail(graph.left_out))
