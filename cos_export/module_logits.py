"""Runs a user's module over images. Its forward may write into what it is given, so it is given copies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from cos_export.bounds import MOST_BATCH
from cos_export.datasets import ImageArray
from cos_export.device import full_precision
from cos_export.errors import InputError
from cos_export.progress import Progress, silent
from cos_export.user_code import user_code
from cos_export.whole_number import whole_number
from cos_export.wrappers import unwrapped

__all__ = ["eval_mode", "images_at_once", "module_logits", "one_tensor"]


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Puts a module in eval mode, and afterwards each of its submodules back in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def one_tensor(output: Any) -> Tensor:
    """The one tensor that a module has returned, alone or in a tuple, list or dictionary beside what is None.

    Raises:
        InputError: There is none, or there are several.
    """
    tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    if len(tensors) != 1:
        raise InputError(f"The module returns {len(tensors)} tensors for a batch, and must return its logits alone.")
    return tensors[0]


_NUMBERS = 512 * 3 * 32 * 32
"""In a batch of images: what a module makes of one may take a hundred times its memory, and nobody knows."""


def images_at_once(images: Tensor | ImageArray, most: int) -> int:
    """Images that a module computes together: `most`, or a lower power of two of those larger than 3 x 32 x 32.

    Args:
        images: (samples, ...).
        most: The batch size that was asked for.
    """
    fitting = _NUMBERS // max(1, math.prod(images.shape[1:]))
    return most if most <= fitting else 1 << max(0, fitting.bit_length() - 1)


def module_logits(
    model: nn.Module,
    images: Tensor | ImageArray,
    *,
    device: torch.device,
    batch_size: int = 512,
    progress: Progress = silent,
) -> Tensor:
    """What `model` computes in eval mode, in full float32 precision.

    Args:
        model: From images to logits; afterwards in the modes it was in, and on the CPU.
        images: (samples, ...) on the host. They are never written to.
        device: Where it runs.
        batch_size: Samples computed at once, fewer where images are large (`images_at_once`).
        progress: Told of each batch.

    Returns:
        What it returns, in one tensor on the host: (samples, classes), or as the module has it.

    Raises:
        InputError: Its forward raises something.
    """
    unwrapped(model)  # What is not a module is named.
    batch_size = images_at_once(images, whole_number("batch_size", batch_size, 1, MOST_BATCH))
    model.to(device)
    try:
        shape = tuple(images.shape[1:])
        failure = f"{type(model).__name__} fails on images of shape {shape}"
        with user_code(failure), eval_mode(model), torch.no_grad(), full_precision():
            whole: Tensor | None = None
            parts: list[Tensor] = []
            for start in range(0, len(images), batch_size):
                progress("running the module", start, len(images))
                # The copy is not to be left out: `.to` gives back the very tensor where there is nothing to move.
                batch = torch.as_tensor(images[start : start + batch_size]).to(device, copy=True)
                rows = one_tensor(model(batch)).cpu()
                if start == 0 and rows.shape[:1] == batch.shape[:1]:
                    # Small results that are kept one by one leave no room for the next batch where this one has been.
                    whole = rows.new_empty(len(images), *rows.shape[1:])
                if whole is None:
                    parts.append(rows)
                elif rows.shape == (len(batch), *whole.shape[1:]):
                    whole[start : start + len(batch)] = rows
                else:
                    raise InputError(f"{failure}: from batch to batch it returns another shape, {tuple(rows.shape)}.")
        progress("running the module", len(images), len(images))
        return torch.cat(parts) if whole is None else whole
    finally:
        model.cpu()
