"""How often a network is right."""

from __future__ import annotations

import torch
from torch import nn

from cos_export.datasets import Dataset
from cos_export.device import resolve_device

__all__ = ["accuracy"]


def accuracy(
    model: nn.Module, dataset: Dataset, *, device: str | torch.device = "auto", batch_size: int = 512
) -> float:
    """The share of samples whose largest logit is their label, the model in eval mode and then back on the CPU."""
    where, was_training = resolve_device(device), model.training
    model.to(where).eval()
    correct = 0
    with torch.no_grad():
        for start in range(0, len(dataset), batch_size):
            batch = torch.from_numpy(dataset.images[start : start + batch_size]).to(where)
            guessed = model(batch).argmax(dim=1).cpu().numpy()
            correct += int((guessed == dataset.labels[start : start + batch_size]).sum())
    model.cpu().train(was_training)
    return correct / len(dataset)
