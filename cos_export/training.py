"""Trains a network of QCFS activations, and keeps how it was done beside its weights."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from cos_export.atomic_file import written_whole
from cos_export.datasets import Dataset
from cos_export.device import resolve_device
from cos_export.errors import InputError
from cos_export.progress import Progress, silent

__all__ = [
    "Epoch",
    "Recipe",
    "TrainingResult",
    "accuracy",
    "check_checkpoint_destination",
    "save_checkpoint",
    "train",
]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: SGD with momentum and one cycle of the learning rate.

    Attributes:
        epochs: Passes over the training data.
        learning_rate: The highest of the cycle.
        batch_size: Samples per step.
        seed: Of the initial weights, the order of the samples and their augmentation.
        momentum: Of SGD, with Nesterov's correction.
        weight_decay: On the weights of convolutions and linear layers only; biases, batch norm and thresholds
            have none.
        label_smoothing: Share of each target that is spread over all classes.
        shift: Each training image is moved by up to this many pixels along each axis; zeros come in.
        flip: Whether half the training images are mirrored left to right.
    """

    epochs: int
    learning_rate: float
    batch_size: int
    seed: int = 0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    shift: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        for name, lowest in (("epochs", 1), ("batch_size", 1), ("shift", 0), ("weight_decay", 0.0)):
            if getattr(self, name) < lowest:
                raise InputError(f"{name} must be at least {lowest}, and is {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate must be positive, and is {self.learning_rate}.")
        for name in ("label_smoothing", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be in [0, 1), and is {getattr(self, name)}.")


@dataclass(frozen=True)
class Epoch:
    """Mean loss and accuracy over one pass of the augmented training data."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class TrainingResult:
    """What a training has come to.

    Attributes:
        history: One entry for each epoch.
        train_accuracy: On the training data, not augmented, at the end.
        test_accuracy: On the test data at the end, or None if none were given.
        seconds: Wall-clock time.
        recipe: What was asked for.
    """

    history: tuple[Epoch, ...]
    train_accuracy: float
    test_accuracy: float | None
    seconds: float
    recipe: Recipe


def train(
    model: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    *,
    test: Dataset | None = None,
    device: str | torch.device = "auto",
    progress: Progress = silent,
) -> TrainingResult:
    """Trains `model` in place.

    The same seed gives the same weights on the same machine with the same number of threads. The test data are
    looked at once, after the last epoch, so nothing is chosen by them.

    Args:
        model: From images (samples, ...) to logits (samples, classes); left on the CPU, in eval mode.
        dataset: What to train on.
        recipe: How.
        test: What to measure the accuracy on.
        device: "auto", "cpu", "cuda" or "cuda:N".
        progress: Told of each epoch.

    Raises:
        InputError: The model does not take these images, or the loss is no longer a finite number.
        UnavailableError: The device is not there.
    """
    started, where = time.perf_counter(), resolve_device(device)
    images = torch.from_numpy(np.ascontiguousarray(dataset.images)).to(where)
    labels = torch.from_numpy(dataset.labels).to(where)
    if recipe.batch_size > len(dataset):
        raise InputError(f"batch_size is {recipe.batch_size}, and {dataset.name} has {len(dataset)} samples.")
    # The global generator drives dropout; it is put back afterwards.
    devices = [where] if where.type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=True),
    ):
        torch.manual_seed(recipe.seed)
        # Convolutions with channels last train several times as fast on a CPU, and no slower elsewhere.
        _lay_out(model.to(where).train(), torch.channels_last)
        try:
            history = _epochs(model, images, labels, recipe, progress)
        finally:
            _lay_out(model.cpu().eval(), torch.contiguous_format)
    return TrainingResult(
        history=history,
        train_accuracy=accuracy(model, dataset, device=where),
        test_accuracy=None if test is None else accuracy(model, test, device=where),
        seconds=time.perf_counter() - started,
        recipe=recipe,
    )


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


def check_checkpoint_destination(path: str | Path) -> None:
    """Refuses, before any training, a path that `save_checkpoint` could not write to.

    Raises:
        InputError: It does not end in .safetensors, or its folder does not exist.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"Weights are written as .safetensors, and {path} ends otherwise.")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"{path} cannot be written: its folder does not exist, or it is a folder itself.")


def save_checkpoint(model: nn.Module, path: str | Path, result: TrainingResult, *, name: str) -> Path:
    """Writes the weights as safetensors, with the recipe and the accuracy in the file's header.

    The file is there whole or not at all.

    Args:
        model: The trained network.
        path: Where to; the folder must exist.
        result: What `train` returned.
        name: The network's name.

    Raises:
        InputError: The file cannot be written there.
    """
    check_checkpoint_destination(path)
    path = Path(path)
    trained = {"model": name, "recipe": asdict(result.recipe), "test_accuracy": result.test_accuracy}
    # One key only: safetensors writes several in an order that changes from run to run.
    header = {"training": json.dumps(trained, sort_keys=True)}
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with written_whole(path) as draft:
        save_file(state, draft, metadata=header)
    return path


def _epochs(model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, progress: Progress) -> tuple[Epoch, ...]:
    # The last, smaller batch is dropped: its noisy batch-norm statistics would weigh as much as a full one's.
    per_epoch = len(images) // recipe.batch_size
    optimizer = _optimizer(model, recipe)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=recipe.learning_rate,
        total_steps=recipe.epochs * per_epoch + 1,
        cycle_momentum=False,
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    history = []
    for epoch in range(recipe.epochs):
        progress("training", epoch, recipe.epochs)
        order = torch.randperm(len(images), generator=generator).to(images.device)
        loss_sum = torch.zeros((), device=images.device)
        correct = torch.zeros((), device=images.device)
        for batch in order[: per_epoch * recipe.batch_size].reshape(per_epoch, recipe.batch_size):
            shown = _augment(images[batch], recipe, generator)
            logits = model(shown.contiguous(memory_format=torch.channels_last) if shown.ndim == 4 else shown)
            loss = functional.cross_entropy(logits, labels[batch], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            loss_sum += loss.detach()
            correct += (logits.argmax(dim=1) == labels[batch]).sum()
        mean = float(loss_sum) / per_epoch
        if not np.isfinite(mean):
            raise InputError(
                f"The loss is {mean} after epoch {epoch + 1}. Try a lower learning rate than {recipe.learning_rate}."
            )
        history.append(Epoch(mean, float(correct) / (per_epoch * recipe.batch_size)))
    progress("training", recipe.epochs, recipe.epochs)
    return tuple(history)


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


def _augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Shifted and mirrored copies of `images` (samples, channels, height, width)."""
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
