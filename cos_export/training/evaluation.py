"""How often a network is right."""

from __future__ import annotations

import torch
from torch import nn

from cos_export.datasets import Dataset
from cos_export.device import resolve_device
from cos_export.module_logits import module_logits

__all__ = ["accuracy"]


def accuracy(
    model: nn.Module, dataset: Dataset, *, device: str | torch.device = "auto", batch_size: int = 512
) -> float:
    """The share of samples whose largest logit is their label, the model in eval mode and then back on the CPU."""
    images = torch.from_numpy(dataset.images)
    logits = module_logits(model, images, device=resolve_device(device), batch_size=batch_size)
    return float((logits.argmax(dim=1).numpy() == dataset.labels).mean())
