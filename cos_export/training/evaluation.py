"""How often a network is right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from cos_export.datasets import Dataset, labelled
from cos_export.decisions import class_count
from cos_export.device import resolve_device
from cos_export.errors import InputError
from cos_export.progress import Progress, silent
from cos_export.shared_logits import shared_module_logits

__all__ = ["accuracy", "check_logits"]


def accuracy(
    model: nn.Module,
    data: Dataset | TorchDataset[Any] | DataLoader[Any],
    *,
    device: str | torch.device = "auto",
    batch_size: int = 512,
    progress: Progress = silent,
) -> float:
    """The share of samples whose largest logit is their label, the model in eval mode and then back on the CPU.

    Several processes in a `process_group` share the samples, and all return the same.

    Raises:
        InputError: The data are not images with labels, or have a label that the model has no logit for.
    """
    dataset = labelled(data)
    logits = shared_module_logits(
        model, dataset.images, device=resolve_device(device), batch_size=batch_size, progress=progress
    )
    check_logits(model, logits, dataset)
    return float((logits.argmax(dim=1).numpy() == dataset.truth).mean())


def check_logits(model: nn.Module, logits: object, dataset: Dataset, *, one_for_two: bool = False) -> None:
    """Refuses what a model made of a batch if it cannot be held against the labels.

    Args:
        model: The model.
        logits: What it made of the batch.
        dataset: Whose labels are meant.
        one_for_two: Whether one logit may stand for two classes, by its sign: cross-entropy knows no such thing.

    Raises:
        InputError: It is not (batch, classes), or a label of the data set is beyond its classes.
    """
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        actual = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise InputError(f"{type(model).__name__} must return logits (batch, classes), and returned {actual}.")
    if dataset.labels is None:
        return
    largest = int(dataset.labels.max())
    classes = class_count(logits.shape[1]) if one_for_two else logits.shape[1]
    if classes == 1 <= largest:
        raise InputError(
            f"{type(model).__name__} returns one logit, and {dataset.name} has labels up to {largest}. "
            "Give one logit for each class: 0 and z in place of one logit z decide as z > 0 does."
        )
    if largest >= classes:
        raise InputError(
            f"{type(model).__name__} knows {classes} classes, and {dataset.name} has labels up to {largest} "
            f"(sample {int(dataset.labels.argmax())})."
        )
