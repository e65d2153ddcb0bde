"""From a module to the graph that is walked and observed, with the replacements that the user asked for made."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cos_export.capturing.averaging import average_max_pools
from cos_export.capturing.findings import Finding, explain
from cos_export.capturing.options import Options
from cos_export.capturing.pool_order import activate_before_pooling
from cos_export.capturing.rewriting import rewrite
from cos_export.capturing.tail import without_tail
from cos_export.capturing.tracing import Traced, check_example, trace
from cos_export.datasets import Images
from cos_export.errors import CaptureError
from cos_export.wrappers import unwrapped_copy

__all__ = ["prepare", "traced_module"]


def traced_module(model: nn.Module, example_input: Images, options: Options) -> Traced:
    """The graph of a copy of `model`, which thresholds, capture and check share.

    Args:
        model: Left as it is.
        example_input: As for `cos_export.capture`.
        options: Of which `levels` and `max_pool` count.

    Raises:
        CaptureError: It cannot be traced.
        InputError: `model` is not a module, or the example is not one tensor of images.
    """
    found = prepare(model, check_example(example_input), options)
    if isinstance(found, Finding):
        raise CaptureError(explain(type(model).__name__, [found]))
    return found


def prepare(model: nn.Module, example: Tensor, options: Options) -> Traced | Finding:
    """The graph of a copy of `model`, or why there is none.

    Args:
        model: Left as it is.
        example: From `check_example`.
        options: What the user chose.

    Raises:
        InputError: `model` is not a module.
    """
    module = unwrapped_copy(model)
    foreign = _not_artificial(module)
    if foreign is not None:
        return foreign
    traced = trace(module, example, options.levels)
    if isinstance(traced, Finding):
        return traced
    if options.max_pool == "average":
        average_max_pools(traced.graph)
    else:
        activate_before_pooling(traced)
    traced = without_tail(traced)
    rewrite(traced.graph, traced.constants)
    return traced


_SPIKING = ("lava", "norse", "sinabs", "snntorch", "spikingjelly")
"""Packages whose modules are spiking neurons."""


def _not_artificial(module: nn.Module) -> Finding | None:
    """Names the first part that no capture can start from: compiled to TorchScript, or a spiking neuron already."""
    for path, part in module.named_modules():
        kind, package = type(part).__name__, type(part).__module__.partition(".")[0]
        if isinstance(part, torch.jit.ScriptModule):
            reason = "it is TorchScript, which holds no Python code to trace"
            return Finding(path, kind, None, "", reason, "give the nn.Module that it was made of, with its weights")
        if package in _SPIKING:
            reason = f"it is a module of {package}, of a network that is spiking already"
            fix = "give the artificial network that it was made of; cos_export.read_nir reads a spiking one"
            return Finding(path, kind, None, "", reason, fix)
    return None
