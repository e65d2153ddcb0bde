"""Images of which batches are taken on a device, in another order again and again."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cos_export.datasets import ImageArray, StoredImages
from cos_export.datasets.byte_images import Pixels
from cos_export.device import to_device

__all__ = ["ON_DEVICE", "DeviceImages"]

ON_DEVICE = 2**30
"""Bytes of images that may lie on a device, 1 GiB: 350,000 of CIFAR-10's size as bytes. On a GPU also no more than a
quarter of what is free."""


class DeviceImages:
    """Batches of images on a device.

    Pixels that stay bytes lie there whole, one byte each, if they fit (`ON_DEVICE`), and become float32 as their batch
    is taken: by a table of what each of the 256 values is in each channel, which the host has computed, so that they
    are the same numbers to the bit on every device. All else is read on the host and copied batch by batch; an array of
    float32 may lie there whole, too.

    Args:
        images: float32 (samples, ...), or what stands for them.
        device: Where the batches are wanted.
        whole: Whether an array of float32 is to lie there whole.
    """

    def __init__(self, images: ImageArray, device: torch.device | str, *, whole: bool = False) -> None:
        self._images, self._device = images, torch.device(device)
        self._held: Tensor | None = None
        self._table: Tensor | None = None
        pixels = images.pixels() if isinstance(images, StoredImages) else None
        if pixels is not None and _fits(pixels, self._device):
            self._held = torch.from_numpy(pixels.bytes).to(self._device)
            # One line of 256 values after the other: the table as it is indexed.
            self._table = torch.from_numpy(pixels.values).flatten().to(self._device)
            channels = torch.arange(0, len(self._table), 256, dtype=torch.int32, device=self._device)
            self._first = channels.reshape(-1, *[1] * (self._held.ndim - 2))
        elif whole and not isinstance(images, StoredImages):
            self._held = torch.from_numpy(np.ascontiguousarray(images)).to(self._device)

    def take(self, numbers: Tensor, same: NDArray[np.int64]) -> Tensor:
        """The images with these numbers, float32 (samples, ...) on the device.

        Args:
            numbers: (samples,) on the device.
            same: The same numbers on the host, for images that are read there.
        """
        if self._held is None:
            return to_device(torch.from_numpy(self._images[same]), self._device)
        chosen = self._held.index_select(0, numbers)
        if self._table is None:
            return chosen
        places = chosen.to(torch.int32).add_(self._first)
        return self._table.index_select(0, places.flatten()).reshape(chosen.shape)


def _fits(pixels: Pixels, device: torch.device) -> bool:
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 4 * ON_DEVICE
    return pixels.bytes.nbytes <= min(ON_DEVICE, free // 4)
