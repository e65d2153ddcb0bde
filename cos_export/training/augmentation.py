"""Training images that are moved and mirrored at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from cos_export.training.recipe import Recipe

__all__ = ["Augmentation", "augment", "draw", "mirrored", "moved"]


@dataclass(frozen=True)
class Augmentation:
    """How the images of a batch, or of each of several batches, are changed.

    Attributes:
        turned: (samples,) or (batches, samples), which are mirrored, or None.
        corner: (2, samples) or (batches, 2, samples), as for `moved`, or None.
        shift: As for `moved`.
    """

    turned: Tensor | None
    corner: Tensor | None
    shift: int

    def of(self, part: slice) -> Augmentation:
        """That of some of the images of each batch."""
        return self._made(lambda drawn: drawn[..., part])

    def at(self, batch: int) -> Augmentation:
        """That of one of several batches."""
        return self._made(lambda drawn: drawn[batch])

    def to(self, device: torch.device) -> Augmentation:
        """The same, on a device."""
        return self._made(lambda drawn: drawn.to(device))

    def _made(self, change: Callable[[Tensor], Tensor]) -> Augmentation:
        turned, corner = (None if drawn is None else change(drawn) for drawn in (self.turned, self.corner))
        return replace(self, turned=turned, corner=corner)


def draw(batches: int, recipe: Recipe, generator: torch.Generator) -> Augmentation:
    """Draws from `generator` (CPU), one batch after the other, how so many batches of the recipe's size are changed."""
    turned, corner, samples, shift = [], [], recipe.batch_size, recipe.shift
    for _ in range(batches):
        if recipe.flip:
            turned.append(torch.rand(samples, generator=generator) < 0.5)
        if shift:
            corner.append(torch.randint(0, 2 * shift + 1, (2, samples), generator=generator))
    return Augmentation(torch.stack(turned) if turned else None, torch.stack(corner) if corner else None, shift)


def augment(images: Tensor, how: Augmentation) -> Tensor:
    """Shifted and mirrored copies of `images` (samples, channels, height, width)."""
    if how.turned is not None:
        images = mirrored(images, how.turned)
    if how.corner is not None:
        images = moved(images, how.corner, how.shift)
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
