"""Activations before the max pooling that they follow: an activation that never falls commutes with a maximum.

    act(max(a, b)) = max(act(a), act(b))

So a maximum is always one of spikes, and networks that spell the two in either order become the same network. Between
them may be what commutes as well: dropout, copies, a flatten, and a batch norm whose weights are positive.
"""

from __future__ import annotations

import operator as python_operator
from collections.abc import Iterator

import torch
from torch import fx

from cos_export.capturing.aliasing import mutates
from cos_export.capturing.operators.rectifiers import rectifier_bound
from cos_export.capturing.tracing import Traced, named_arguments

__all__ = ["activate_before_pooling"]

_POOLS = (
    "aten.max_pool1d",
    "aten.max_pool2d",
    "aten.adaptive_max_pool1d",
    "aten.adaptive_max_pool2d",
    "aten.amax",
    "aten.amin",
    "aten.max.dim",
    "aten.min.dim",
)
_COPYING = ("aten.alias", "aten.clone", "aten.contiguous", "aten.detach")
_RESHAPING = ("aten.flatten", "aten.view", "aten.reshape")
_DROPOUTS = ("aten.dropout.default", "aten.feature_dropout.default", "aten.alpha_dropout.default")


def activate_before_pooling(traced: Traced) -> None:
    """Moves each activation that alone reads a max pooling to where the pooling takes its input, in the graph."""
    for pool in reversed(list(traced.graph.nodes)):
        if pool.op == "call_function" and str(pool.target).startswith(_POOLS) and pool.all_input_nodes:
            _forget_unread(pool)
            between = list(_between(traced, pool))
            if between and _is_activation(between[-1]) and not _written_meanwhile(pool, between[-1]):
                _move_before(pool, between)


def _forget_unread(pool: fx.Node) -> None:
    """Leaves out results of the pooling that nothing reads, such as where the maxima are."""
    for user in list(pool.users):
        if user.target is python_operator.getitem and not user.users:
            pool.graph.erase_node(user)


def _between(traced: Traced, pool: fx.Node) -> Iterator[fx.Node]:
    """What reads the pooling's result, each the only reader of the one before, up to the activation."""
    node, by_channel = pool, True
    while len(node.users) == 1:
        (user,) = node.users
        if user.op != "call_function" or not user.args or user.args[0] is not node:
            return
        yield user
        norm = _is_norm(user)
        if _is_activation(user) or not (_passes(user) or (norm and by_channel and _rises(traced, user))):
            return
        by_channel = by_channel and not str(user.target).startswith(_RESHAPING)
        node = user


def _passes(node: fx.Node) -> bool:
    if node.target is python_operator.getitem:
        return bool(node.args[1] == 0)
    name = str(node.target)
    return name.startswith((*_COPYING, *_RESHAPING)) or (name in _DROPOUTS and named_arguments(node)["train"] is False)


def _is_norm(node: fx.Node) -> bool:
    return str(node.target) == "aten.batch_norm.default" and named_arguments(node)["training"] is False


def _rises(traced: Traced, norm: fx.Node) -> bool:
    """Whether a batch norm keeps the order of numbers in every channel."""
    weight = named_arguments(norm)["weight"]
    held = traced.constants.get(weight) if isinstance(weight, fx.Node) else None
    return weight is None or (held is not None and bool((held > 0).all()))


def _is_activation(node: fx.Node) -> bool:
    """Whether it is an activation that never falls."""
    name, given = str(node.target), named_arguments(node)
    if name in ("aten.leaky_relu.default", "aten.leaky_relu_.default"):
        return bool(given["negative_slope"] >= 0)
    clips = name in ("aten.hardtanh.default", "aten.hardtanh_.default")
    return clips or name == "cos_export.qcfs.default" or rectifier_bound(node) is not None


def _written_meanwhile(pool: fx.Node, activation: fx.Node) -> bool:
    """Whether an operation between them overwrites something, which the pooling would then read."""
    node = pool.next
    while node is not activation:
        if mutates(node):
            return True
        node = node.next
    return False


def _move_before(pool: fx.Node, between: list[fx.Node]) -> None:
    """Lets the activation that ends `between`, and batch norms before it, read what `pool` reads, and `pool` that."""
    source, activation = pool.all_input_nodes[0], between[-1]
    moved = [node for node in between if _is_norm(node) or node is activation]
    staying = [pool, *(node for node in between if node not in moved)]
    activation.replace_all_uses_with(staying[-1])
    for node, before in zip([*moved, *staying], [source, *moved, *staying], strict=False):
        node.replace_input_with(node.all_input_nodes[0], before)
        if node in moved:
            node.meta = {**node.meta, "val": source.meta["val"]}
    place = activation
    for node in staying:
        place.append(node)
        place = node
    name = str(activation.target).split(".")[1]
    if name.endswith("_"):
        # It overwrote the result of the pooling, and must not overwrite what others may read.
        activation.target = getattr(torch.ops.aten, name.rstrip("_")).default
