"""Turns a trained PyTorch module into a network of integrate-and-fire neurons.

The module is traced with `torch.export`, and its graph is walked once. Every wire from a spiking node carries
unit spikes, so the threshold theta of a layer is a factor that waits until a synapse takes it into its weights;
the divisor of an average pooling waits likewise. Where no synapse follows (a residual's identity path, an
addition, the output), one is made that carries the factor alone.
"""

from __future__ import annotations

from numpy.typing import ArrayLike
from torch import Tensor, nn

from cos_export.capturing.findings import Finding, explain
from cos_export.capturing.tracing import check_example, trace
from cos_export.capturing.walk import walk
from cos_export.errors import CaptureError
from cos_export.network import SpikingNetwork

__all__ = ["Finding", "capture", "inspect_module"]


def capture(model: nn.Module, example_input: ArrayLike | Tensor) -> SpikingNetwork:
    """The spiking network of a module whose activations are `QCFS`, with theta = lambda and v(0) = theta / 2.

    For each layer `cos_export.simulation.activate` computes on it what the module computes in eval mode.
    Weights are folded in float64 and rounded to float32 once.

    Args:
        model: From one float32 tensor (batch, ...) to logits (batch, classes). It is left untouched.
        example_input: One input of the right shape, (batch, ...), any batch size; its values do not matter.

    Returns:
        The network, not calibrated.

    Raises:
        CaptureError: The module holds what has no spiking equivalent. The message lists all of it, with the
            path of each submodule, the source line, and what to do.
        InputError: The example is not one float32 tensor.
    """
    example = check_example(example_input)
    name = type(model).__name__
    traced = trace(model, example)
    if isinstance(traced, Finding):
        raise CaptureError(explain(name, [traced]))
    walked = walk(traced)
    if walked.network is None:
        raise CaptureError(explain(name, walked.findings))
    return walked.network


def inspect_module(model: nn.Module, example_input: ArrayLike | Tensor) -> list[Finding]:
    """What `capture` would make of each operation of a module, by the same code.

    Args:
        model: As for `capture`.
        example_input: As for `capture`.

    Returns:
        A finding for each operation, converted or not, in the order in which they run. `capture` succeeds if and
        only if none has a blocker.

    Raises:
        InputError: The example is not one float32 tensor.
    """
    traced = trace(model, check_example(example_input))
    return [traced] if isinstance(traced, Finding) else walk(traced).findings
