"""The learning curve as a picture."""

from __future__ import annotations

import io
from pathlib import Path

from cos_export.atomic_file import atomic_write, check_derived_destination
from cos_export.errors import InputError
from cos_export.training.result import TrainingResult

__all__ = ["check_curve_destination", "save_learning_curve"]

_TITLE = "cos-export learning curve"
"""What tells these pictures from others: the title in their header."""


def check_curve_destination(path: str | Path) -> None:
    """Refuses, before any training, a path that the learning curve may not be written to.

    Raises:
        InputError: The path does not end in .png or cannot be written, or a picture of another kind is there.
    """
    if Path(path).suffix != ".png":
        raise InputError(f"The learning curve is drawn as .png, and {path} ends otherwise.")
    check_derived_destination(Path(path), _TITLE.encode())


def save_learning_curve(path: str | Path, result: TrainingResult) -> Path:
    """Draws loss and accuracy of each epoch on the augmented training data, and the accuracies at the end.

    Args:
        path: A `.png`; the folder must exist.
        result: What `train` returned.

    Raises:
        InputError: As `check_curve_destination`.
    """
    # A Figure without pyplot has no window, no global state and no display to need.
    from matplotlib.figure import Figure

    path = Path(path)
    check_curve_destination(path)
    epochs = range(1, len(result.history) + 1)
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [epoch.loss for epoch in result.history], "o-", markersize=3, color="#0b6e4f")
    left.set_ylabel("loss (augmented)")
    shares = [100 * epoch.accuracy for epoch in result.history]
    right.plot(epochs, shares, "o-", markersize=3, color="#0b6e4f", label="training, augmented")
    ends = (("training", result.train_accuracy, "#3d5a80"), ("test", result.test_accuracy, "#c8553d"))
    for label, share, colour in ends:
        if share is not None:
            text = f"{label} at the end: {100 * share:.2f} %"
            right.axhline(100 * share, color=colour, linestyle="--", linewidth=1, label=text)
    right.set_ylabel("accuracy (%)")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    picture = io.BytesIO()
    # Without the software's version it repeats to the byte.
    figure.savefig(picture, format="png", dpi=120, metadata={"Software": None, "Title": _TITLE})
    with atomic_write(path) as draft:
        draft.write_bytes(picture.getbuffer())
    return path
