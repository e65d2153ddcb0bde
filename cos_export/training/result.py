"""What a training has come to."""

from __future__ import annotations

from dataclasses import dataclass

from cos_export.training.recipe import Recipe

__all__ = ["Epoch", "TrainingResult"]


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
        seconds: Wall-clock time, that before an interruption included.
        recipe: What was asked for.
        autocast: The type that mixed precision computed in, or None if all was float32.
    """

    history: tuple[Epoch, ...]
    train_accuracy: float
    test_accuracy: float | None
    seconds: float
    recipe: Recipe
    autocast: str | None = None
