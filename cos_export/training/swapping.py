"""Makes a trained ReLU network one of QCFS activations, to be fine-tuned in a few epochs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from cos_export.bounds import MOST_LEVELS
from cos_export.datasets import Images, image_array
from cos_export.errors import InputError
from cos_export.module_logits import eval_mode
from cos_export.qcfs import QCFS
from cos_export.reading.weights import read_safetensors_note
from cos_export.user_code import user_code
from cos_export.whole_number import whole_number
from cos_export.wrappers import unwrapped

__all__ = ["restore_swapped", "swap_activations"]

_BATCH = 256


def swap_activations(
    model: nn.Module, images: Images, levels: int = 4, *, percentile: float = 99.0
) -> dict[str, float]:
    """Puts a `QCFS` in the place of every `nn.ReLU`, its threshold taken from data.

        lambda = max over batches of the p-th percentile of the ReLU's positive outputs, p = 100: their maximum

    A module that is used in several places is swapped in all of them and keeps one threshold. ReLUs that are
    functions (torch.relu, torch.nn.functional.relu) are not modules and stay: `cos_export.inspect_module` lists them.

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
        InputError: There is no nn.ReLU, one never ran or was never positive on these images, one works in place on
            what is read again under another name (a QCFS writes nothing), or an argument is wrong.

    Source: thresholds from a percentile of the activations, Rueckauer et al., Frontiers in Neuroscience 2017;
        fine-tuning with the staircase, Bu et al., ICLR 2022.
    """
    if not 0 < percentile <= 100:
        raise InputError(f"percentile must be above 0 and at most 100, and is {percentile}.")
    model, levels = unwrapped(model), whole_number("levels", levels, 1, MOST_LEVELS)
    if isinstance(model, nn.ReLU):
        raise InputError("The model is a single ReLU. Put it in an nn.Sequential.")
    relus: dict[nn.ReLU, str] = {m: path for path, m in model.named_modules() if isinstance(m, nn.ReLU)}
    if not relus:
        raise InputError(
            f"{type(model).__name__} has no nn.ReLU module to swap. A ReLU that forward calls as a function must "
            "become a module first: self.act = nn.ReLU()."
        )
    given = torch.from_numpy(image_array(images))
    if given.ndim < 2:
        raise InputError(f"The images must be (samples, ...), and have shape {tuple(given.shape)}.")
    _check_in_place(model, relus, given[:_BATCH])
    largest = _observe(model, relus, given, percentile)
    silent = [path for module, path in relus.items() if not largest.get(module, 0.0) > 0]
    if silent:
        raise InputError(
            f"On these images the output of {', '.join(silent)} was never positive, so it has no threshold."
        )
    swapped = {module: QCFS(levels, largest[module]) for module in relus}
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, nn.ReLU):
                place = next(parent.parameters(), next(model.parameters(), torch.empty(0))).device
                setattr(parent, name, swapped[child].to(place).train(child.training))
    return {path: largest[module] for module, path in relus.items()}


def restore_swapped(model: nn.Module, path: str | Path) -> None:
    """Swaps the ReLUs of `model` that were swapped before the weights in `path` were trained, so that those fit.

    The header of a checkpoint that `cos-export train --swap-activations` wrote says which, and with what L. A model
    that holds QCFS there already, and a file that says nothing of it, are left alone.

    Args:
        model: The network as its factory builds it, changed in place.
        path: A `.safetensors` file of weights.

    Raises:
        InputError: The file names an activation that the model does not have.
    """
    for name in _swapped_paths(Path(path)):
        parent, _, child = name[0].rpartition(".")
        try:
            place = model.get_submodule(parent)
            child_module = place.get_submodule(child)
        except AttributeError as error:
            raise InputError(
                f"{path} was trained with a QCFS at {name[0]!r}, and {type(model).__name__} has no module there."
            ) from error
        if isinstance(child_module, nn.ReLU):
            setattr(place, child, QCFS(name[1]))


def _swapped_paths(path: Path) -> list[tuple[str, int]]:
    """(module path, L) of each activation that a checkpoint's header says was swapped."""
    if path.suffix != ".safetensors":
        return []
    try:
        note = read_safetensors_note(path, "training")
    except InputError:
        # Whether it is a file of weights at all is for the loader to say.
        return []
    start = note.get("start") if isinstance(note, dict) else None
    swapped, levels = (start.get("swapped"), start.get("levels")) if isinstance(start, dict) else (None, None)
    if not isinstance(swapped, dict) or type(levels) is not int or levels < 1:
        return []  # Not our header.
    return [(str(name), levels) for name in swapped]


def _observe(model: nn.Module, relus: dict[nn.ReLU, str], images: Tensor, percentile: float) -> dict[nn.ReLU, float]:
    """The largest percentile of each ReLU's positive outputs over the batches of `images`."""
    largest: dict[nn.ReLU, float] = {}

    def watch(module: nn.ReLU) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def seen(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            positive = output.detach()[output.detach() > 0].float()
            if positive.numel():
                rank = max(1, round(percentile / 100 * positive.numel()))
                largest[module] = max(largest.get(module, 0.0), float(positive.kthvalue(rank).values))

        return seen

    hooks = [module.register_forward_hook(watch(module)) for module in relus]
    try:
        for batch in torch.split(images, _BATCH):
            _run(model, batch)
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


def _check_in_place(model: nn.Module, relus: dict[nn.ReLU, str], images: Tensor) -> None:
    """Refuses ReLUs that work in place where that matters: without it the network gives something else.

    That is so where forward drops their result, or reads their input again under another name.

    Raises:
        InputError: There are such ReLUs; the message names them.
    """
    writing = [module for module in relus if module.inplace]

    def alike(others: list[nn.ReLU]) -> bool:
        for module in others:
            module.inplace = False
        try:
            output = _run(model, images)
        finally:
            for module in others:
                module.inplace = True
        return all(map(_close, output, expected))

    if not writing:
        return
    expected = _run(model, images)
    if alike(writing):
        return
    # Where only several together matter, all of them are named.
    names = [relus[module] for module in writing if not alike([module])] or [relus[module] for module in writing]
    raise InputError(
        f"{', '.join(map(repr, names))}: nn.ReLU(inplace=True) writes over an input that forward reads again, so a "
        "QCFS there, which writes over nothing, would make another network. Give forward the result alone, "
        "x = self.relu(x), or use nn.ReLU() there and train with it."
    )


def _close(one: Tensor, two: Tensor) -> bool:
    """Whether two runs of the same operations on the same values agree, whatever the order of their sums."""
    largest = float(two.detach().nan_to_num(0.0).abs().max()) if two.numel() else 0.0
    return torch.allclose(one, two, rtol=1e-5, atol=1e-6 * largest, equal_nan=True)
