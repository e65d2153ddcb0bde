"""Makes a trained ReLU network one of QCFS activations, to be fine-tuned in a few epochs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cos_export.errors import InputError
from cos_export.qcfs import QCFS

__all__ = ["restore_swapped", "swap_activations"]

_BATCH = 256


def swap_activations(
    model: nn.Module, images: ArrayLike | Tensor, levels: int = 4, *, percentile: float = 99.0
) -> dict[str, float]:
    """Puts a `QCFS` in the place of every `nn.ReLU`, its threshold taken from data.

        lambda = max over batches of the p-th percentile of the ReLU's positive outputs, p = 100: their maximum

    A module that is used in several places is swapped in all of them and keeps one threshold. ReLUs that are
    functions (torch.relu, torch.nn.functional.relu) are no modules and stay: `cos_export.inspect_module` lists them.

    Args:
        model: A trained network, changed in place; left in the mode and on the device it was in.
        images: Inputs such as it was trained on, float32 (samples, ...). A few hundred are enough.
        levels: L of every QCFS.
        percentile: p, above 0 and at most 100. A few large outputs below 100 are clipped so that the others get
            finer steps.

    Returns:
        The thresholds by the path of their module, to be kept with the checkpoint.

    Raises:
        InputError: There is no nn.ReLU, one never ran or was never positive on these images, or an argument is wrong.

    Source: thresholds from a percentile of the activations, Rueckauer et al., Frontiers in Neuroscience 2017;
        fine-tuning with the staircase, Bu et al., ICLR 2022.
    """
    if not 0 < percentile <= 100:
        raise InputError(f"percentile must be above 0 and at most 100, and is {percentile}.")
    if levels < 1:
        raise InputError(f"QCFS needs at least 1 level, and levels is {levels}.")
    if isinstance(model, nn.ReLU):
        raise InputError("The model is a single ReLU. Put it in an nn.Sequential.")
    found: dict[nn.ReLU, str] = {m: path for path, m in model.named_modules() if isinstance(m, nn.ReLU)}
    if not found:
        raise InputError(
            f"{type(model).__name__} has no nn.ReLU module to swap. A ReLU that forward calls as a function must "
            "become a module first: self.act = nn.ReLU()."
        )
    given = images if isinstance(images, Tensor) else torch.from_numpy(np.ascontiguousarray(images, np.float32))
    if given.ndim < 2 or len(given) == 0:
        raise InputError(
            f"images must be (samples, ...) with at least one sample, and have shape {tuple(given.shape)}."
        )
    largest = _observe(model, found, given, percentile)
    silent = [path for module, path in found.items() if not largest.get(module, 0.0) > 0]
    if silent:
        raise InputError(
            f"On these images the output of {', '.join(silent)} was never positive, so it has no threshold."
        )
    swapped = {module: QCFS(levels, largest[module]) for module in found}
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, nn.ReLU):
                place = next(parent.parameters(), next(model.parameters(), torch.empty(0))).device
                setattr(parent, name, swapped[child].to(place).train(child.training))
    return {path: largest[module] for module, path in found.items()}


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
            found = place.get_submodule(child)
        except AttributeError as error:
            raise InputError(
                f"{path} was trained with a QCFS at {name[0]!r}, and {type(model).__name__} has no module there."
            ) from error
        if isinstance(found, nn.ReLU):
            setattr(place, child, QCFS(name[1]))


def _swapped_paths(path: Path) -> list[tuple[str, int]]:
    """(module path, L) of each activation that a checkpoint's header says was swapped."""
    if path.suffix != ".safetensors" or not path.is_file():
        return []
    try:
        with safe_open(path, framework="pt") as file:
            start = json.loads((file.metadata() or {}).get("training", "{}")).get("start", {})
        return [(str(name), int(start["levels"])) for name in start.get("swapped", {})]
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError):
        # Not our header: whether the weights fit is for the loader to say.
        return []


def _observe(model: nn.Module, found: dict[nn.ReLU, str], images: Tensor, percentile: float) -> dict[nn.ReLU, float]:
    """The largest percentile of each ReLU's positive outputs over the batches of `images`."""
    largest: dict[nn.ReLU, float] = {}

    def watch(module: nn.ReLU) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def seen(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            positive = output.detach()[output.detach() > 0].float()
            if positive.numel():
                rank = max(1, round(percentile / 100 * positive.numel()))
                largest[module] = max(largest.get(module, 0.0), float(positive.kthvalue(rank).values))

        return seen

    modes = {module: module.training for module in model.modules()}
    place = next(model.parameters(), torch.empty(0)).device
    hooks = [module.register_forward_hook(watch(module)) for module in found]
    try:
        model.eval()
        with torch.no_grad():
            for batch in torch.split(images, _BATCH):
                model(batch.to(place))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return largest
