"""ReLUs that forward calls as functions: finding them, and putting a module in the place of each call.

A call is told from others by its number within one run of the whole network's forward, 0 first. Each gets a module of
its own, so a function that a loop calls three times becomes three modules, as does one of a block that is used in three
places. Forward must therefore call the same ones in the same order whenever it runs; how often it does is checked at
every run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cos_export.capturing.recognition import recognise_activations
from cos_export.errors import InputError
from cos_export.qcfs import QCFS
from cos_export.user_code import calling_place, line_at

__all__ = [
    "FUNCTIONAL_RELUS",
    "ReluCall",
    "find_relu_calls",
    "intercept",
    "intercepted",
    "record",
    "release",
    "watched_calls",
]

FUNCTIONAL_RELUS = "functional_relus"
"""Under which a checkpoint's header says what stands for the calls of ReLU functions."""

_FUNCTIONS = (functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)
_CLAMPS = (
    *(torch.clamp, torch.clamp_, torch.clip, torch.clip_, Tensor.clamp, Tensor.clamp_, Tensor.clip, Tensor.clip_),
    *(torch.clamp_min, torch.clamp_min_, Tensor.clamp_min, Tensor.clamp_min_),
)
"""Given 0 as the least and no greatest value, each is a ReLU."""
_SITES = "_cos_export_relu_calls"
"""The attribute of a network that says which module stands for each call."""


@dataclass(frozen=True)
class ReluCall:
    """One call of a ReLU as a function.

    Attributes:
        path: Where the module that takes its place is to be, "" where it stays what it is: on what does not depend on
            the input, or within an activation.
        within: The path of the activation of the user's own that it is within and that is recognised as a whole, or "".
        line: The user's line, "file:number: code".
        inplace: Whether it writes over its input.
    """

    path: str
    within: str
    line: str | None
    inplace: bool


Watcher = Callable[[int, Tensor, Callable[[], Tensor]], Tensor]
"""Given the number of a call, its input and what makes the call: gives the result."""


def find_relu_calls(model: nn.Module, run: Callable[[], object], again: Callable[[], object]) -> tuple[ReluCall, ...]:
    """The calls of ReLU functions in forward, in their order; those within `nn.ReLU` modules are not among them.

    Args:
        model: The network, in eval mode while it runs.
        run: Runs it.
        again: Runs it on another input of the same shape: what is the same there does not depend on the input.

    Raises:
        InputError: It calls some in one run and others in the next; or it calls some, and is a graph of torch.fx or
            has a forward of its own beside its class's.
    """
    first, second = _inputs(model, run), _inputs(model, again)
    if [owner for owner, *_ in first] != [owner for owner, *_ in second]:
        raise InputError(
            f"{type(model).__name__} calls ReLU functions {len(first)} times on one input and {len(second)} times on "
            "another, or from other modules. What forward does must not depend on the values of its input."
        )
    if first and (isinstance(model, fx.GraphModule) or "forward" in vars(model)):
        what = "is a graph of torch.fx" if isinstance(model, fx.GraphModule) else "has a forward that its class has not"
        raise InputError(
            f"{type(model).__name__} {what}, and calls ReLUs as functions. Give the module that it was made of."
        )
    whole = recognise_activations(copy.deepcopy(model).eval(), None).notes if first else {}
    taken: set[str] = set()
    calls = []
    for (owner, z, line, inplace), (_, other, *_) in zip(first, second, strict=True):
        within = next((path for path in whole if owner == path or owner.startswith(f"{path}.")), "")
        stays = within or torch.equal(z, other)
        calls.append(ReluCall("" if stays else _free_path(model, owner, taken), within, line, inplace))
    return tuple(calls)


@contextmanager
def watched_calls(model: nn.Module, watcher: Watcher) -> Iterator[None]:
    """Shows `watcher` each call of a ReLU function that is not within an `nn.ReLU`, for one run of `model`."""
    inside: list[nn.Module] = []
    hooks = []
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            hooks.append(module.register_forward_pre_hook(lambda one, _: inside.append(one)))
            hooks.append(module.register_forward_hook(lambda *_: _leave(inside), always_call=True))
    try:
        with _Calls(lambda number, z, call: call() if inside else watcher(number, z, call), lambda: not inside):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def intercept(model: nn.Module, modules: Sequence[tuple[str, nn.Module | None]]) -> None:
    """Makes modules of the calls of ReLU functions, in place; copies of the network and its state dict have them.

    Args:
        model: The network; its class becomes a subclass of what it was, whose forward hands each call to its module.
        modules: For each call in its order, where its module is to be and the module; ("", None) leaves it a ReLU.

    Raises:
        InputError: There is no such place in the network, or something is there.
    """
    before = {part: dict(part._modules) for part in model.modules()}
    try:
        for path, module in modules:
            parent, _, name = path.rpartition(".")
            if module is not None:
                owner = model.get_submodule(parent)
                place = next(owner.parameters(), next(model.parameters(), torch.empty(0))).device
                owner.add_module(name, module.to(place).train(owner.training))
    except (AttributeError, KeyError, TypeError) as error:
        for part, children in before.items():
            part._modules.clear()
            part._modules.update(children)
        raise InputError(f"{type(model).__name__} has no place for an activation at {path!r}: {error}") from error
    setattr(model, _SITES, tuple(path for path, _ in modules))
    kind = type(model)
    # torch.export reads the names of forward's arguments off its signature.
    forward = wraps(kind.forward)(lambda self, *args, **kwargs: _forward(self, kind.forward, args, kwargs))
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    model.__class__ = type(kind.__name__, (_Intercepting, kind), names | {"forward": forward})


def intercepted(model: nn.Module) -> tuple[str, ...]:
    """The paths of the modules that stand for calls of ReLU functions, in the calls' order; "" for one that stays."""
    return cast("tuple[str, ...]", getattr(model, _SITES, ()))


def record(model: nn.Module) -> list[list[Any]]:
    """[path, L] of what stands for each call, as a checkpoint's header keeps it; L is 0 where the ReLU stays."""
    return [[path, cast("QCFS", model.get_submodule(path)).levels if path else 0] for path in intercepted(model)]


def release(model: nn.Module) -> None:
    """Takes `intercept` back; the modules stay where they are."""
    if isinstance(model, _Intercepting):
        model.__class__ = type(model).__mro__[2]
        delattr(model, _SITES)


class _Intercepting:
    """What a network whose calls are handed to modules is, besides what it was."""


def _forward(model: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What `forward` gives with the modules in the place of the calls."""
    paths = intercepted(model)
    modules = [model.get_submodule(path) if path else None for path in paths]

    def act(number: int, z: Tensor, call: Callable[[], Tensor]) -> Tensor:
        if number >= len(modules):
            raise InputError(_changed(model, len(paths), "more", line_at(calling_place())))
        module = modules[number]
        return call() if module is None else cast("Tensor", module(z))

    calls = _Calls(act)
    with calls:
        output = forward(model, *args, **kwargs)
    if calls.count != len(paths):
        raise InputError(_changed(model, len(paths), f"only {calls.count}", None))
    return output


class _Calls(TorchFunctionMode):
    """Hands each call of a ReLU function to a watcher, with its number."""

    def __init__(self, watcher: Watcher, counted: Callable[[], bool] = lambda: True) -> None:
        super().__init__()
        self._watcher, self._counted = watcher, counted
        self.count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if not (func in _FUNCTIONS or (func in _CLAMPS and _is_relu(*args, **given))):
            return func(*args, **given)
        number = self.count
        self.count += self._counted()
        return self._watcher(number, args[0] if args else given["input"], lambda: func(*args, **given))


def _is_relu(input: Any, min: Any = None, max: Any = None, *, out: Any = None) -> bool:
    """Whether a clamp with these arguments, named as torch's are, is a ReLU."""
    return max is None and out is None and isinstance(min, int | float) and min == 0


def _inputs(model: nn.Module, run: Callable[[], object]) -> list[tuple[str, Tensor, str | None, bool]]:
    """(path of the module whose forward calls it, input, line, whether it is in place) of each call."""
    paths = {module: path for path, module in model.named_modules()}
    running: list[nn.Module] = []
    found: list[tuple[str, Tensor, str | None, bool]] = []
    hooks = [module.register_forward_pre_hook(lambda one, _: running.append(one)) for module in model.modules()]
    hooks += [module.register_forward_hook(lambda *_: _leave(running), always_call=True) for module in model.modules()]

    def watch(_: int, z: Tensor, call: Callable[[], Tensor]) -> Tensor:
        kept, line = z.detach().clone(), line_at(calling_place())
        result = call()
        inplace = result.untyped_storage().data_ptr() == z.untyped_storage().data_ptr()
        found.append((paths[running[-1]] if running else "", kept, line, inplace))
        return result

    try:
        with watched_calls(model, watch):
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _leave(running: list[nn.Module]) -> None:
    if running:
        running.pop()


def _free_path(model: nn.Module, owner: str, taken: set[str]) -> str:
    """owner.relu, owner.relu_1, ...: the first that nothing is at."""
    module, number = model.get_submodule(owner), 0
    while True:
        name = f"relu_{number}" if number else "relu"
        path = f"{owner}.{name}" if owner else name
        if path not in taken and not hasattr(module, name):
            taken.add(path)
            return path
        number += 1


def _changed(model: nn.Module, expected: int, actual: str, line: str | None) -> str:
    where = f"\n  in {line}" if line else ""
    return (
        f"The forward of {type(model).__name__} called ReLU functions {expected} times when its activations were "
        f"swapped, and now {actual}. It must call the same ones at every run, in training as in eval mode.{where}"
    )
