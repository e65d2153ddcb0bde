"""How to train the zoo's wide networks, of which it has no weights."""

from __future__ import annotations

from cos_export.training import Recipe

__all__ = ["WIDE_RECIPE"]

WIDE_RECIPE = Recipe(
    epochs=100,
    learning_rate=0.1,
    batch_size=128,
    weight_decay=5e-4,
    label_smoothing=0.05,
    shift=4,
    flip=True,
    precision="mixed",
)
"""To start from, on a CUDA device. No weights were trained with it."""
