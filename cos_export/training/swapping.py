"""Makes a trained ReLU network one of QCFS activations, to be fine-tuned in a few epochs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from cos_export.bounds import MOST_LEVELS
from cos_export.datasets import Images, image_array, in_memory
from cos_export.errors import InputError
from cos_export.module_logits import eval_mode
from cos_export.qcfs import QCFS
from cos_export.training.functional_relus import ReluCall, find_relu_calls, intercept, watched_calls
from cos_export.user_code import user_code
from cos_export.whole_number import whole_number
from cos_export.wrappers import unwrapped

__all__ = ["swap_activations"]

_BATCH = 256

_FEW = 2
"""Images on which the calls of functions are found."""


def swap_activations(
    model: nn.Module, images: Images, levels: int = 4, *, percentile: float = 99.0
) -> dict[str, float]:
    """Puts a `QCFS` in the place of every ReLU, its threshold taken from data.

        lambda = max over batches of the p-th percentile of the ReLU's positive outputs, p = 100: their maximum

    An `nn.ReLU` that is used in several places is swapped in all of them and keeps one threshold. Where forward calls
    a function (torch.relu, torch.nn.functional.relu, x.relu(), in place or not), each call gets a `QCFS` of its own,
    called after the module whose forward it is in: layer1.0.relu, layer1.0.relu_1. Such a network's class becomes a
    subclass, and its forward must call the same ReLU functions at every run. A ReLU of what does not depend on
    the input stays.

    Args:
        model: A trained network, changed in place; left in the mode and on the device it was in.
        images: Inputs such as it was trained on, in any form that `cos_export.simulate` takes. A few hundred
            are enough. They are left untouched.
        levels: L of every QCFS.
        percentile: p, above 0 and at most 100. A few large outputs below 100 are clipped so that the others get
            finer steps.

    Returns:
        The thresholds by the path of their module, to be kept with the checkpoint.

    Raises:
        InputError: There is no ReLU, one never ran or was never positive on these images, one works in place on
            what is read again under another name (a QCFS writes nothing), forward calls other functions for other
            images, or calls one within an activation that `cos_export.capture` recognises as a whole; or an argument
            is wrong.

    Source: thresholds from a percentile of the activations, Rueckauer et al., Frontiers in Neuroscience 2017;
        fine-tuning with the staircase, Bu et al., ICLR 2022.
    """
    if not 0 < percentile <= 100:
        raise InputError(f"percentile must be above 0 and at most 100, and is {percentile}.")
    model, levels = unwrapped(model), whole_number("levels", levels, 1, MOST_LEVELS)
    if isinstance(model, nn.ReLU):
        raise InputError("The model is a single ReLU. Put it in an nn.Sequential.")
    given = torch.from_numpy(in_memory(image_array(images)))
    if given.ndim < 2:
        raise InputError(f"The images must be (samples, ...), and have shape {tuple(given.shape)}.")
    relus: dict[nn.ReLU, str] = {m: path for path, m in model.named_modules() if isinstance(m, nn.ReLU)}
    few = given[:_FEW]
    calls = find_relu_calls(model, lambda: _run(model, few), lambda: _run(model, _another(few)))
    if not relus and not any(call.path for call in calls):
        raise InputError(f"{type(model).__name__} has no ReLU to swap, neither as a module nor as a function.")
    _check_whole(calls)
    _check_in_place(model, relus, calls, given[:_BATCH])
    largest = _observe(model, relus, calls, given, percentile)
    paths = [*relus.values(), *(call.path for call in calls if call.path)]
    silent = [path for path in paths if not largest.get(path, 0.0) > 0]
    if silent:
        raise InputError(
            f"On these images the output of {', '.join(silent)} was never positive, so it has no threshold."
        )
    if any(call.path for call in calls):
        made = [(call.path, QCFS(levels, largest[call.path]) if call.path else None) for call in calls]
        intercept(model, made)
    swapped = {module: QCFS(levels, largest[path]) for module, path in relus.items()}
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, nn.ReLU):
                place = next(parent.parameters(), next(model.parameters(), torch.empty(0))).device
                setattr(parent, name, swapped[child].to(place).train(child.training))
    return {path: largest[path] for path in paths}


def _observe(
    model: nn.Module, relus: dict[nn.ReLU, str], calls: Sequence[ReluCall], images: Tensor, percentile: float
) -> dict[str, float]:
    """The largest percentile of each ReLU's positive outputs over the batches of `images`, by path."""
    largest: dict[str, float] = {}

    def note(path: str, output: Tensor) -> None:
        positive = output.detach()[output.detach() > 0].float()
        if positive.numel():
            rank = max(1, round(percentile / 100 * positive.numel()))
            largest[path] = max(largest.get(path, 0.0), float(positive.kthvalue(rank).values))

    def watch(number: int, _: Tensor, call: Callable[[], Tensor]) -> Tensor:
        result = call()
        if number < len(calls) and calls[number].path:
            note(calls[number].path, result)
        ran.append(number)
        return result

    def noting(path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _, __, output: note(path, output)

    hooks = [module.register_forward_hook(noting(path)) for module, path in relus.items()]
    try:
        for batch in torch.split(images, _BATCH):
            ran: list[int] = []
            with watched_calls(model, watch):
                _run(model, batch)
            if len(ran) != len(calls):
                raise InputError(
                    f"{type(model).__name__} calls ReLU functions {len(calls)} times for some images and {len(ran)} "
                    "times for others. What forward does must not depend on the values of its input."
                )
    finally:
        for hook in hooks:
            hook.remove()
    return largest


def _run(model: nn.Module, images: Tensor) -> list[Tensor]:
    """All tensors that `model` returns in eval mode. It is given a copy of the images, for it may write into them."""
    place = next(model.parameters(), torch.empty(0)).device
    failure = f"{type(model).__name__} fails on images of shape {tuple(images.shape[1:])}"
    with user_code(failure), eval_mode(model), torch.no_grad():
        returned = model(images.to(place, copy=True))
    return [leaf for leaf in tree_leaves(returned) if isinstance(leaf, Tensor)]


def _another(images: Tensor) -> Tensor:
    """Images of the same shape that no network takes for the same, whatever it normalises."""
    return 0.5 * images.flip(-1) + torch.linspace(0, 1, images[0].numel()).reshape(images.shape[1:])


def _check_whole(calls: Sequence[ReluCall]) -> None:
    """Refuses an activation that is recognised as a whole where calls are counted: what replaces it calls none.

    Raises:
        InputError: There is one that calls a ReLU function, beside calls that are to be swapped.
    """
    within = next((call for call in calls if call.within), None)
    if within is not None and any(call.path for call in calls):
        raise InputError(
            f"{within.within!r} is an activation with a bound or steps of its own, which is recognised as a whole, and "
            f"calls a ReLU function that is none to swap. Write z.clamp(0, math.inf) there.\n  in {within.line}"
        )


def _check_in_place(model: nn.Module, relus: dict[nn.ReLU, str], calls: Sequence[ReluCall], images: Tensor) -> None:
    """Refuses ReLUs that work in place where that matters: without it the network gives something else.

    That is so where forward drops their result, or reads their input again under another name.

    Raises:
        InputError: There are such ReLUs; the message names them.
    """
    modules = {path: module for module, path in relus.items() if module.inplace}
    numbers = {call.path: number for number, call in enumerate(calls) if call.path and call.inplace}
    writing = [*modules, *numbers]

    def alike(others: list[str]) -> bool:
        plain = {numbers[path] for path in others if path in numbers}
        changed = [modules[path] for path in others if path in modules]

        def watch(number: int, z: Tensor, call: Callable[[], Tensor]) -> Tensor:
            return z.clamp(min=0) if number in plain else call()

        for module in changed:
            module.inplace = False
        try:
            with watched_calls(model, watch):
                output = _run(model, images)
        finally:
            for module in changed:
                module.inplace = True
        return all(map(_close, output, expected))

    if not writing:
        return
    expected = _run(model, images)
    if alike(writing):
        return
    # Where only several together matter, all of them are named.
    names = [path for path in writing if not alike([path])] or writing
    lines = [f"\n  {path}: {calls[numbers[path]].line}" for path in names if path in numbers]
    raise InputError(
        f"{', '.join(map(repr, names))}: a ReLU that works in place (nn.ReLU(inplace=True), relu_) writes over an "
        "input that forward reads again, so a QCFS there, which writes over nothing, would make another network. Give "
        "forward the result alone, x = self.relu(x), or use a ReLU that does not work in place and train with it."
        + "".join(lines)
    )


def _close(one: Tensor, two: Tensor) -> bool:
    """Whether two runs of the same operations on the same values agree, whatever the order of their sums."""
    largest = float(two.detach().nan_to_num(0.0).abs().max()) if two.numel() else 0.0
    return torch.allclose(one, two, rtol=1e-5, atol=1e-6 * largest, equal_nan=True)
