"""What the Input sends step by step."""

from __future__ import annotations

import torch
from torch import Tensor

from cos_export.network import SpikingNetwork, check_held_throughout
from cos_export.simulation.neuron import channels_last

__all__ = ["input_train"]


def input_train(network: SpikingNetwork, images: Tensor, steps: int | None) -> Tensor:
    """The images for as many steps as the network's input is held, and zeros afterwards; or one frame at each step.

    Args:
        network: Whose Input sends them.
        images: What it sends, (batch, ...), or frames (batch, at least T, ...).
        steps: T, or None where only a network whose input is held for all steps can be run, or for all frames.

    Returns:
        (steps, batch, ...), or (1, batch, ...) if it is the same at every step.

    Raises:
        InputError: T is not known, and the input is not held for all steps.
    """
    if images.ndim == len(network.input_shape) + 2:
        train = images[:, :steps].movedim(1, 0)
        return channels_last(train) if images.ndim == 5 else train
    if steps is None:
        check_held_throughout(network)
    held, shown = images.unsqueeze(0), network.input_steps
    if shown is None or steps is None or steps <= shown:
        return held
    return torch.cat([held.expand(shown, *images.shape), torch.zeros_like(held).expand(steps - shown, *images.shape)])
