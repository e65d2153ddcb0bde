"""ReLUs of any spelling, bounded or not: an integrate-and-fire layer stands for each, clipped at its threshold.

    a = clip(z, 0, theta)

A bounded one has theta = its bound. For an unbounded one theta is chosen from data: too low cuts activations off,
too high leaves few spikes to tell them apart.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
from torch import Tensor, fx

from cos_export.capturing.findings import Unsupported
from cos_export.capturing.operators.registry import Call, Converted, operator
from cos_export.capturing.options import Options
from cos_export.capturing.refusals import refusal
from cos_export.capturing.tracing import Traced, has_module, named_arguments, operation, operation_path
from cos_export.errors import InputError

__all__ = ["check_keys", "rectifier_bound", "rectifier_keys"]

_PLAIN = ("aten.relu.default", "aten.relu_.default")
_SIX = ("aten.relu6.default", "aten.relu6_.default")
_HARDTANH = ("aten.hardtanh.default", "aten.hardtanh_.default")
_CLAMP = ("aten.clamp.default", "aten.clamp_.default", "aten.clip.default", "aten.clip_.default")
_CLAMP_MIN = ("aten.clamp_min.default", "aten.clamp_min_.default")
_TENSORS = (
    *("aten.clamp.Tensor", "aten.clamp_.Tensor", "aten.clip.Tensor", "aten.clip_.Tensor"),
    *("aten.clamp_min.Tensor", "aten.clamp_min_.Tensor", "aten.clamp_max.Tensor", "aten.clamp_max_.Tensor"),
)
"""What is not written with numbers or with gains before the graph is walked (`rewriting.bounds`)."""
_THRESHOLD = ("aten.threshold.default", "aten.threshold_.default")


def rectifier_bound(node: fx.Node) -> float | None:
    """B if the node is clip(z, 0, b), inf if it is max(z, 0), None if it is neither."""
    target, given = str(node.target), named_arguments(node)
    if target in _PLAIN:
        return math.inf
    if target in _SIX:
        return 6.0
    if target in _HARDTANH:
        return _bound(given["min_val"], given["max_val"])
    if target in _CLAMP:
        return _bound(given["min"], given["max"])
    if target in _CLAMP_MIN:
        return _bound(given["min"], None)
    if target in _THRESHOLD:
        return math.inf if given["threshold"] == given["value"] == 0 else None
    return None


def _bound(lowest: Any, highest: Any) -> float | None:
    if not isinstance(lowest, int | float) or lowest != 0:
        return None
    if highest is None:
        return math.inf
    return float(highest) if isinstance(highest, int | float) and highest > 0 else None


def rectifier_keys(traced: Traced) -> dict[fx.Node, str]:
    """What the user calls each ReLU: "layer1.0.relu", and "layer1.0.relu@1" where it is called a second time.

    A function such as F.relu is called after the module whose forward calls it, "layer1.0.relu", or "relu"; where a
    submodule is at that path, that path is the submodule's, and the function is "layer1.0.relu()".
    """
    seen: Counter[str] = Counter()
    keys = {}
    for node in traced.graph.nodes:
        if node.op != "call_function" or rectifier_bound(node) is None:
            continue
        path, whole = operation_path(traced, node)
        # torch.export may spell one ReLU in place and another not: the key does not show it.
        key = path if whole else _function_key(traced, path, operation(node).rstrip("_"))
        keys[node] = f"{key}@{seen[key]}" if seen[key] else key
        seen[key] += 1
    return keys


def _function_key(traced: Traced, path: str, name: str) -> str:
    key = f"{path}.{name}" if path else name
    return f"{key}()" if has_module(traced, key) else key


def check_keys(traced: Traced, options: Options) -> None:
    """Checks that every threshold is one of a ReLU of the module.

    Raises:
        InputError: One is not.
    """
    known = rectifier_keys(traced).values()
    unknown = sorted(set(options.thresholds) - set(known))
    if unknown:
        raise InputError(
            f"There is no ReLU {', '.join(map(repr, unknown))} to set a threshold of. "
            + (f"There are {', '.join(map(repr, known))}." if known else "The module has none.")
        )


def _bounds(call: Call) -> list[Any]:
    return [call.arguments.get(name) for name in ("min", "max", "min_val", "max_val")]


@operator(*_PLAIN, *_SIX, *_HARDTANH, *_CLAMP, *_CLAMP_MIN, *_THRESHOLD, *_TENSORS)
def _rectifier(call: Call) -> Converted:
    value, bound = call.first_signal(), rectifier_bound(call.node)
    if bound is None and any(isinstance(held, fx.Node | Tensor) for held in _bounds(call)):
        raise Unsupported(
            "its bound is computed from the input, or differs from place to place within a channel",
            "use one number, or one for each channel: nn.Hardtanh(0, b), or a parameter or a buffer that is the bound",
        )
    if bound is None:
        raise Unsupported(*refusal(operation(call.node)))
    given, warning = call.options.thresholds.get(call.key), None
    if given is None and math.isinf(bound):
        if not call.options.assume_thresholds:
            raise Unsupported(
                "a ReLU without an upper bound needs a threshold, and the best one depends on data",
                f"give thresholds=cos_export.relu_thresholds(model, images), which finds one for {call.key!r} (commands"
                " take --data); or use cos_export.QCFS(levels=4) in its place and train (or fine-tune) with it",
            )
        given, warning = np.ones(()), "its threshold is to be computed from data"
    if given is not None and given.ndim and len(given) != value.channels:
        raise Unsupported(
            f"it has {value.channels} channels, and {len(given)} thresholds were given for {call.key!r}",
            "give one threshold, or one for each channel",
        )
    # Clipping at the bound and then at a higher threshold is clipping at the bound.
    threshold = np.asarray(bound) if given is None else np.minimum(given, bound)
    name, result = call.builder.neurons(call.name, value, threshold, None, unbounded=math.isinf(bound))
    if warning is not None:
        return Converted(result, f"IF {name!r}", warning=warning)
    low, high = float(threshold.min()), float(threshold.max())
    words = f"threshold {low:.4g}" if low == high else f"thresholds {low:.4g} to {high:.4g} by channel"
    return Converted(result, f"IF {name!r} with {words}")
