"""Training images that are moved and mirrored at random."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from cos_export.training.recipe import Recipe

__all__ = ["augment", "mirrored", "moved"]


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Shifted and mirrored copies of `images` (samples, channels, height, width), drawn from `generator` (CPU)."""
    count = len(images)
    if recipe.flip:
        images = mirrored(images, torch.rand(count, generator=generator) < 0.5)
    if recipe.shift:
        images = moved(images, torch.randint(0, 2 * recipe.shift + 1, (2, count), generator=generator), recipe.shift)
    return images


def mirrored(images: Tensor, which: Tensor) -> Tensor:
    """`images` (samples, channels, height, width), those that `which` (samples,) says left to right."""
    return torch.where(which.to(images.device)[:, None, None, None], images.flip(3), images)


def moved(images: Tensor, corner: Tensor, shift: int) -> Tensor:
    """`images` (samples, channels, height, width) cut out of themselves with a border of `shift` zeros.

    Args:
        images: What to move.
        corner: (2, samples), the first row and column of each cut, from 0 to 2 shift; `shift` moves nothing.
        shift: The most that an image moves along an axis.
    """
    count, _, height, width = images.shape
    padded = functional.pad(images, [shift] * 4)
    corner = corner.to(images.device)[..., None]
    rows = corner[0] + torch.arange(height, device=images.device)
    columns = corner[1] + torch.arange(width, device=images.device)
    sample = torch.arange(count, device=images.device)[:, None, None]
    return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
