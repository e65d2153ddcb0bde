"""How a network is trained, as numbers that can be written down and repeated."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from cos_export.bounds import LARGEST_SEED, MOST_BATCH, MOST_ROUNDS, MOST_SHIFT
from cos_export.errors import InputError
from cos_export.whole_number import whole_number

__all__ = ["Precision", "Recipe", "Schedule", "fine_tuning", "learning_rate"]

Schedule = Literal["one-cycle", "cosine"]
Precision = Literal["float32", "mixed"]

_BOUNDS = {
    "epochs": (1, MOST_ROUNDS),
    "batch_size": (1, MOST_BATCH),
    "shift": (0, MOST_SHIFT),
    "seed": (0, LARGEST_SEED),
}


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: SGD with momentum, and a learning rate that changes with every step.

    Attributes:
        epochs: Passes over the training data.
        learning_rate: The highest that is reached.
        batch_size: Samples per step.
        seed: Of the initial weights, the order of the samples and their augmentation.
        momentum: Of SGD, with Nesterov's correction.
        weight_decay: On the weights of convolutions and linear layers only; biases, batch norm and thresholds
            have none.
        label_smoothing: Share of each target that is spread over all classes.
        shift: Each training image is moved by up to this many pixels along each axis; zeros come in.
        flip: Whether half the training images are mirrored left to right.
        schedule: "one-cycle" rises to the learning rate and falls far below it, the way to few epochs from scratch.
            "cosine" starts at it and falls to zero, the way to fine-tune. `learning_rate()` has the equations.
        precision: "mixed" computes convolutions and products in bfloat16 on a CUDA device (in float16 with a scaled
            loss where it knows no bfloat16) and on a CPU with instructions for it (AVX-512 BF16, AMX); on other CPUs
            it would gain nothing, and is "float32".
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
    schedule: Schedule = "one-cycle"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        for name, (lowest, highest) in _BOUNDS.items():
            object.__setattr__(self, name, whole_number(name, getattr(self, name), lowest, highest))
        if not self.weight_decay >= 0.0:
            raise InputError(f"weight_decay must be at least 0.0, and is {self.weight_decay}.")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate must be positive, and is {self.learning_rate}.")
        for name in ("label_smoothing", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be in [0, 1), and is {getattr(self, name)}.")
        for name, known in (("schedule", get_args(Schedule)), ("precision", get_args(Precision))):
            if getattr(self, name) not in known:
                raise InputError(f"{name} must be {' or '.join(map(repr, known))}, and is {getattr(self, name)!r}.")

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON has it: `Recipe(**recipe.to_dict()) == recipe`.

        The fields that came last are left out where they are at their defaults, so that a checkpoint written before
        they came is repeated to the byte.
        """
        late = {"schedule": "one-cycle", "precision": "float32"}
        return {name: value for name, value in asdict(self).items() if late.get(name) != value}


def fine_tuning(recipe: Recipe) -> Recipe:
    """How a trained network whose activations were swapped is trained on: 3 epochs from 0.02 down to 0.

    Args:
        recipe: How such a network is trained from random weights; all else stays as it says.
    """
    return replace(recipe, epochs=3, learning_rate=0.02, schedule="cosine")


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of a step, from the recipe alone, so that a training can go on from any of them.

    With c(a, b, x) = b + (a - b) (1 + cos(pi x)) / 2, which goes from a at x = 0 to b at x = 1, eta the recipe's
    learning rate and n the steps there are:

        cosine:      c(eta, 0, step / n)
        one-cycle:   c(eta / 25, eta, step / peak)                            up to peak = 0.3 (n + 1) - 1
                     c(eta, eta / 250000, (step - peak) / (n - peak))         after it

    Args:
        recipe: Its schedule and highest learning rate are used.
        step: From 0.
        steps: n, those of the whole training.

    Source: Smith and Topin, "Super-Convergence", 2019 (one cycle); Loshchilov and Hutter, "SGDR", ICLR 2017 (cosine).
    """
    top = recipe.learning_rate
    if recipe.schedule == "cosine":
        return _half_cosine(top, 0.0, step / steps)
    start, peak = top / 25, 0.3 * (steps + 1) - 1
    if step <= peak:
        return _half_cosine(start, top, step / peak)
    return _half_cosine(top, start / 1e4, (step - peak) / (steps - peak))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)
