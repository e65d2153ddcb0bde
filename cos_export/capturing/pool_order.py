"""Activations before the max pooling that they follow: an activation that never falls commutes with a maximum.

    act(max(a, b)) = max(act(a), act(b))

So a maximum is always one of spikes, and networks that spell the two in either order become the same network. Between
them may be what commutes as well: dropout, copies and a flatten.
"""

from __future__ import annotations

import operator as python_operator
from collections.abc import Iterator

import torch
from torch import fx

from cos_export.capturing.aliasing import mutates
from cos_export.capturing.operators.rectifiers import rectifier_bound
from cos_export.capturing.tracing import named_arguments

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
_PASSING = ("aten.alias", "aten.clone", "aten.contiguous", "aten.detach", "aten.flatten", "aten.view", "aten.reshape")
_DROPOUTS = ("aten.dropout.default", "aten.feature_dropout.default", "aten.alpha_dropout.default")


def activate_before_pooling(graph: fx.Graph) -> None:
    """Moves each activation that alone reads a max pooling to where the pooling takes its input."""
    for pool in reversed(list(graph.nodes)):
        if pool.op == "call_function" and str(pool.target).startswith(_POOLS) and pool.all_input_nodes:
            _forget_unread(pool)
            between = list(_between(pool))
            if between and _is_activation(between[-1]) and not _written_meanwhile(pool, between[-1]):
                _move_before(pool, between)


def _forget_unread(pool: fx.Node) -> None:
    """Leaves out results of the pooling that nothing reads, such as where the maxima are."""
    for user in list(pool.users):
        if user.target is python_operator.getitem and not user.users:
            pool.graph.erase_node(user)


def _between(pool: fx.Node) -> Iterator[fx.Node]:
    """What reads the pooling's result, each the only reader of the one before, up to the activation."""
    node = pool
    while len(node.users) == 1:
        (user,) = node.users
        if user.op != "call_function" or not user.args or user.args[0] is not node:
            return
        yield user
        if _is_activation(user) or not _passes(user):
            return
        node = user


def _passes(node: fx.Node) -> bool:
    if node.target is python_operator.getitem:
        return bool(node.args[1] == 0)
    name = str(node.target)
    return name.startswith(_PASSING) or (name in _DROPOUTS and named_arguments(node)["train"] is False)


def _is_activation(node: fx.Node) -> bool:
    return str(node.target) == "cos_export.qcfs.default" or rectifier_bound(node) is not None


def _written_meanwhile(pool: fx.Node, activation: fx.Node) -> bool:
    """Whether an operation between them overwrites something, which the pooling would then read."""
    node = pool.next
    while node is not activation:
        if mutates(node):
            return True
        node = node.next
    return False


def _move_before(pool: fx.Node, between: list[fx.Node]) -> None:
    """Lets the last of `between` read what `pool` reads, and `pool` what that gives."""
    *passing, activation = between
    source, last = pool.all_input_nodes[0], [pool, *passing][-1]
    activation.replace_all_uses_with(last)
    activation.replace_input_with(last, source)
    pool.replace_input_with(source, activation)
    activation.meta = {**activation.meta, "val": source.meta["val"]}
    place = activation
    for node in (pool, *passing):
        place.append(node)
        place = node
    name = str(activation.target).split(".")[1]
    if name.endswith("_"):
        # It overwrote the result of the pooling, and must not overwrite what others may read.
        activation.target = getattr(torch.ops.aten, name.rstrip("_")).default
