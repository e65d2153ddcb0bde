"""The training itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from cos_export.datasets import Dataset, check_class_names, labelled
from cos_export.device import mixed_precision, mixed_precision_type, resolve_device
from cos_export.device_images import DeviceImages
from cos_export.errors import InputError
from cos_export.module_logits import module_logits
from cos_export.processes import is_main, local_device, process_count, process_group, same_everywhere, share, summed
from cos_export.progress import Progress, silent
from cos_export.training.augmentation import augment, draw
from cos_export.training.evaluation import accuracy, check_logits
from cos_export.training.recipe import Recipe, learning_rate
from cos_export.training.result import Epoch, TrainingResult
from cos_export.training.sharing import check_alike, sum_gradients, whole_batch
from cos_export.training.state import Trainee, fingerprint, read_state, write_state
from cos_export.user_code import user_code
from cos_export.wrappers import unwrapped

__all__ = ["train"]

_TRIED = 2
"""Test images that are tried before the training; of one alone a forward may lose the batch axis."""


def train(
    model: nn.Module,
    data: Dataset | TorchDataset[Any] | DataLoader[Any],
    recipe: Recipe,
    *,
    test: Dataset | TorchDataset[Any] | DataLoader[Any] | None = None,
    device: str | torch.device = "auto",
    resume: str | Path | None = None,
    start: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> TrainingResult:
    """Trains `model` in place.

    The same seed gives the same weights on the same machine with the same number of threads. The test data are
    measured once, after the last epoch, so nothing is chosen by them.

    Started by `torchrun` in several processes, each takes its share of every batch and all come to the same weights:
    those of one process up to the order of sums, with its batches, its augmentation, its dropout masks on a CPU, and
    the statistics of whole batches in batch norm (`cos_export.training.sharing`).

    Args:
        model: From images (samples, ...) to logits (samples, classes), with the weights to start from; left on the
            CPU, in eval mode.
        data: What to train on: what `load_dataset` returns, or a torch Dataset or DataLoader of (image, label), which
            is read into memory once.
        recipe: How.
        test: What to measure the accuracy on.
        device: "auto", "cpu", "cuda" or "cuda:N".
        resume: A file for the state of the training (`state_path`), written after every epoch. If it is there, the
            training goes on from it, to the weights that it would have come to without the interruption.
            `save_checkpoint` removes it.
        start: What the weights are at the start, as JSON, such as the hash of a file: `resume` of another start is not
            gone on from. The state knows by itself the recipe, the data, the shapes and the levels of activations.
        progress: Told of the epochs, as the stage "training", and of the steps of each epoch.

    Raises:
        InputError: The model does not take these images or those of `test`, which may have other classes, the loss is
            no longer a finite number, `resume` is not the state of this training, or the processes do not start from
            the same or cannot share a batch of it.
        UnavailableError: The device is not there.
    """
    unwrapped(model)  # What is not a module is named.
    where = local_device(resolve_device(device))
    with process_group(where):
        return _train(model, data, recipe, test, where, resume, start, progress if is_main() else silent)


def _train(
    model: nn.Module,
    data: Dataset | TorchDataset[Any] | DataLoader[Any],
    recipe: Recipe,
    test: Dataset | TorchDataset[Any] | DataLoader[Any] | None,
    where: torch.device,
    resume: str | Path | None,
    start: Mapping[str, Any] | None,
    progress: Progress,
) -> TrainingResult:
    started = time.perf_counter()
    dataset, test = labelled(data), None if test is None else labelled(test)
    if test is not None:
        check_class_names(test.class_names, test.name, dataset.class_names, dataset.name)
    _check_batches(recipe, dataset)
    kept = None if resume is None else Path(resume)
    marks = fingerprint(dataset) if kept is not None or process_count() > 1 else {}
    if not same_everywhere(marks):
        raise InputError(f"The processes do not have the same samples of {dataset.name}. Give all of them the same.")
    if kept is not None and not kept.absolute().parent.is_dir():
        raise InputError(f"{kept} cannot be written: there is no folder {kept.parent}.")
    images = DeviceImages(dataset.images, where, whole=True)
    labels = torch.from_numpy(dataset.truth).to(where)
    autocast = mixed_precision_type(where) if recipe.precision == "mixed" else None
    # The global generators drive dropout; they are put back afterwards.
    devices = [where] if where.type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=True),
    ):
        if test is not None:
            # Looked at once: what does not fit is said before hours of training, and not after them.
            some = test.images[:_TRIED]
            check_logits(model, module_logits(model, some, device=torch.device("cpu")), test)
        torch.manual_seed(recipe.seed)
        # Convolutions with channels last train several times as fast on a CPU, and no slower elsewhere.
        _lay_out(model.to(where).train(), torch.channels_last)
        try:
            trainee = _trainee(model, recipe, autocast)
            if kept is not None and kept.exists():
                read_state(kept, trainee, recipe, marks, start)
            if kept is not None and not same_everywhere(trainee.history):
                raise InputError(f"The processes do not see the same {kept}. Put it where all of them can read it.")
            check_alike(model, "before the training")
            before = trainee.seconds
            for number in range(len(trainee.history), recipe.epochs):
                progress("training", number, recipe.epochs)
                trainee.history += (_epoch(trainee, dataset, images, labels, recipe, autocast, progress),)
                trainee.seconds = before + time.perf_counter() - started
                check_alike(model, f"after epoch {number + 1}")
                if kept is not None and is_main():
                    write_state(kept, trainee, recipe, marks, start)
            progress("training", recipe.epochs, recipe.epochs)
        finally:
            _lay_out(model.cpu().eval(), torch.contiguous_format)
    return TrainingResult(
        history=trainee.history,
        train_accuracy=accuracy(model, dataset, device=where, progress=progress),
        test_accuracy=None if test is None else accuracy(model, test, device=where, progress=progress),
        seconds=before + time.perf_counter() - started,
        recipe=recipe,
        autocast=None if autocast is None else str(autocast).removeprefix("torch."),
    )


def _check_batches(recipe: Recipe, dataset: Dataset) -> None:
    if recipe.batch_size > len(dataset):
        raise InputError(f"batch_size is {recipe.batch_size}, and {dataset.name} has {len(dataset)} samples.")
    if recipe.batch_size < process_count():
        raise InputError(
            f"batch_size is {recipe.batch_size}, and {process_count()} processes share each batch. Start fewer of them."
        )
    if (recipe.flip or recipe.shift) and dataset.images.ndim != 4:
        raise InputError(
            f"flip and shift are for images (samples, channels, height, width), and {dataset.name} has "
            f"{dataset.images.shape}. Leave them out of the recipe."
        )


def _trainee(model: nn.Module, recipe: Recipe, autocast: torch.dtype | None) -> Trainee:
    where = next((p.device.type for p in model.parameters()), "cpu")
    # float16 has too few exponents for small gradients, and bfloat16 has as many as float32.
    scaler = torch.amp.GradScaler(where, enabled=autocast == torch.float16)
    generator = torch.Generator().manual_seed(recipe.seed)
    return Trainee(model, _optimizer(model, recipe), scaler, generator)


def _epoch(
    trainee: Trainee,
    dataset: Dataset,
    images: DeviceImages,
    labels: Tensor,
    recipe: Recipe,
    autocast: torch.dtype | None,
    progress: Progress,
) -> Epoch:
    # The last, smaller batch is dropped: its noisy batch-norm statistics would weigh as much as a full one's.
    per_epoch = len(labels) // recipe.batch_size
    done = len(trainee.history)
    stage = _stage(trainee.history, recipe.epochs)
    own = share(recipe.batch_size)
    part = (own.stop - own.start) / recipe.batch_size
    order = torch.randperm(len(labels), generator=trainee.generator)
    batches = order[: per_epoch * recipe.batch_size].reshape(per_epoch, recipe.batch_size)
    drawn = draw(per_epoch, recipe, trainee.generator).of(own).to(labels.device)
    loss_sum, correct = torch.zeros(2, device=labels.device)
    on_device = batches.to(labels.device)
    for step in range(per_epoch):
        progress(stage, step, per_epoch)
        rate = learning_rate(recipe, done * per_epoch + step, recipe.epochs * per_epoch)
        for group in trainee.optimizer.param_groups:
            group["lr"] = rate
        chosen = on_device[step, own]
        shown = augment(images.take(chosen, batches[step, own].numpy()), drawn.at(step))
        shown = shown.contiguous(memory_format=torch.channels_last) if shown.ndim == 4 else shown
        with whole_batch(own, recipe.batch_size, labels.device):
            with mixed_precision(labels.device, autocast):
                with user_code(f"{type(trainee.model).__name__} fails on a batch of {tuple(shown.shape)} in training"):
                    logits = trainee.model(shown)
                if step == 0:
                    check_logits(trainee.model, logits, dataset)
                loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=recipe.label_smoothing) * part
            trainee.optimizer.zero_grad(set_to_none=True)
            trainee.scaler.scale(loss).backward()
        sum_gradients(trainee.model.parameters())
        trainee.scaler.step(trainee.optimizer)
        trainee.scaler.update()
        if done == step == 0:
            check_alike(trainee.model, "after the first step")
        loss_sum += loss.detach()
        correct += (logits.argmax(dim=1) == labels[chosen]).sum()
    summed([loss_sum, correct])
    mean = float(loss_sum) / per_epoch
    if not np.isfinite(mean):
        raise InputError(
            f"The loss is {mean} after epoch {done + 1}. Try a lower learning rate than {recipe.learning_rate}."
        )
    progress(stage, per_epoch, per_epoch)
    return Epoch(mean, float(correct) / (per_epoch * recipe.batch_size))


def _stage(history: tuple[Epoch, ...], epochs: int) -> str:
    """What an epoch is called while it runs: the same at each of its steps, so the last epoch's figures stand there."""
    name = f"epoch {len(history) + 1} of {epochs}"
    if not history:
        return name
    return f"{name} (before it: loss {history[-1].loss:.3f}, accuracy {100 * history[-1].accuracy:.1f} %)"


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD that decays matrices and kernels, and nothing of fewer axes (biases, batch norm, thresholds)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def _lay_out(model: nn.Module, memory_format: torch.memory_format) -> None:
    for weight in model.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=memory_format)
