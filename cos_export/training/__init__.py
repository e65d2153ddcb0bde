"""Trains a network of QCFS activations, and keeps how it was done beside its weights."""

from __future__ import annotations

from cos_export.training.checkpoint import check_checkpoint_destination, save_checkpoint
from cos_export.training.curve import check_curve_destination, save_learning_curve
from cos_export.training.evaluation import accuracy
from cos_export.training.loop import train
from cos_export.training.recipe import Recipe, fine_tuning, learning_rate
from cos_export.training.restoring import restored_swapped, swapped_before
from cos_export.training.result import Epoch, TrainingResult
from cos_export.training.state import state_path
from cos_export.training.swapping import swap_activations

__all__ = [
    "Epoch",
    "Recipe",
    "TrainingResult",
    "accuracy",
    "check_checkpoint_destination",
    "check_curve_destination",
    "fine_tuning",
    "learning_rate",
    "restored_swapped",
    "save_checkpoint",
    "save_learning_curve",
    "state_path",
    "swap_activations",
    "swapped_before",
    "train",
]
