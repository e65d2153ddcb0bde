"""What other tools put around or into a module, and how it is taken off where nothing changes by that."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune, remove_weight_norm

from cos_export.errors import InputError

__all__ = ["unwrapped", "unwrapped_copy", "unwrapped_within"]


def unwrapped(model: Any) -> nn.Module:
    """The module inside data-parallel wrappers and what `torch.compile` returned: the same object, not a copy.

    Raises:
        InputError: It is not a module. The message says what it is, and what to give.
    """
    while isinstance(model, nn.Module):
        inner = _inner(model)
        if inner is None:
            return model
        model = inner
    raise InputError(f"The network must be a torch.nn.Module, and is {_described(model)}")


def unwrapped_copy(model: Any) -> nn.Module:
    """The same, and a copy without wrappers and masks of submodules where there are any.

    Raises:
        InputError: As for `unwrapped`.
    """
    module = unwrapped(model)
    if not any(_is_wrapped(part) for part in module.modules()):
        return module
    # A pruned weight is computed from two tensors, and only tensors that are not computed can be copied.
    memo: dict[int, Any] = {}
    for part in module.modules():
        for held in vars(part).values():
            if isinstance(held, Tensor) and not held.is_leaf:
                memo[id(held)] = held.detach().clone()
    copied = copy.deepcopy(module, memo)
    unwrapped_within(copied)
    return copied


def unwrapped_within(module: nn.Module) -> None:
    """Takes the wrappers and masks off all parts of `module`, in place; what it computes stays the same.

    weight = weight_orig * weight_mask          torch.nn.utils.prune
    weight = g * v / |v|                        torch.nn.utils.weight_norm
    """
    for part in list(module.modules()):
        part._compiled_call_impl = None
        for name, child in list(part._modules.items()):
            if child is not None and _inner(child) is not None:
                part._modules[name] = unwrapped(child)
    for part in list(module.modules()):
        for name in _pruned(part):
            prune.remove(part, name)  # type: ignore[no-untyped-call]
        for name in _normed(part):
            remove_weight_norm(part, name)


def _inner(module: nn.Module) -> nn.Module | None:
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return module._modules["module"]
    compiled = type(module).__module__.startswith("torch._dynamo")
    return module._modules.get("_orig_mod") if compiled else None


def _is_wrapped(module: nn.Module) -> bool:
    return bool(_inner(module) is not None or _pruned(module) or _normed(module))


def _pruned(module: nn.Module) -> list[str]:
    hooks = module._forward_pre_hooks.values()
    return [hook._tensor_name for hook in hooks if isinstance(hook, prune.BasePruningMethod)]


def _normed(module: nn.Module) -> list[str]:
    hooks = module._forward_pre_hooks.values()
    return [hook.name for hook in hooks if type(hook).__module__ == "torch.nn.utils.weight_norm"]  # type: ignore[attr-defined]


def _described(model: Any) -> str:
    """What is there in place of a module, and what to do."""
    kind = type(model).__name__
    if isinstance(model, type) and issubclass(model, nn.Module):
        return f"the class {model.__name__}. Give a network of it: {model.__name__}()."
    if isinstance(model, Mapping) and model and all(isinstance(value, Tensor) for value in model.values()):
        return f"a state dict ({kind}). Build the network and load it: model.load_state_dict(state)."
    if isinstance(model, Mapping):
        return (
            f"a dict with {', '.join(map(repr, list(model)[:5]))}. Build the network, load the state dict that the "
            "checkpoint holds with model.load_state_dict, and give the network."
        )
    if kind == "SpikingNetwork":
        return "a SpikingNetwork, which is converted already: calibrate, simulate and export take it as it is."
    if isinstance(model, torch.export.ExportedProgram):
        return "an ExportedProgram. Give its module: program.module()."
    return f"a {kind}. Build the network and give that."
