"""Training images that are moved and mirrored at random."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from cos_export.training.recipe import Recipe

__all__ = ["augment"]


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Shifted and mirrored copies of `images` (samples, channels, height, width), drawn from `generator` (CPU)."""
    count, _, height, width = images.shape
    if recipe.flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        images = torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(3), images)
    if recipe.shift:
        padded = functional.pad(images, [recipe.shift] * 4)
        corner = torch.randint(0, 2 * recipe.shift + 1, (2, count, 1), generator=generator).to(images.device)
        rows = corner[0] + torch.arange(height, device=images.device)
        columns = corner[1] + torch.arange(width, device=images.device)
        sample = torch.arange(count, device=images.device)[:, None, None]
        images = padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return images
