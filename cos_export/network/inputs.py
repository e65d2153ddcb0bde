"""What a run of a network takes beside it: images, a number of steps, and states of each sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cos_export.bounds import MAX_STEPS
from cos_export.datasets import Dataset, ImageArray, Images, StoredImages, image_array, mean_over_frames
from cos_export.decisions import class_count
from cos_export.errors import InputError
from cos_export.network.sample_states import SampleStates
from cos_export.network.spiking_network import SpikingNetwork
from cos_export.whole_number import whole_number

__all__ = [
    "any_inputs",
    "are_frames",
    "check_held_throughout",
    "check_images",
    "check_inputs",
    "check_states",
    "check_steps",
    "held_images",
    "with_normalisation_of",
]


def check_images(network: SpikingNetwork, images: Images) -> ImageArray:
    """`images`, each of which is held for all steps, as a float32 array (samples, ...) that the network takes.

    What each type of image means, and where the network's normalisation is applied, is said at
    `cos_export.datasets.image_array`. The array may share the memory of `images`.

    Raises:
        InputError: The shape is not the network's, the type has no meaning, or a value is not finite; or they are
            frames, which change from step to step.
    """
    array = any_inputs(network, images)
    if are_frames(network, array):
        raise InputError(
            f"These are frames (samples, T, ...), of shape {array.shape}, and what was asked for takes images that are "
            "held for all steps. Give the mean over the steps: frames.mean(axis=1)."
        )
    return array


def check_inputs(network: SpikingNetwork, images: Images, steps: int) -> ImageArray:
    """Inputs of a run of T steps: images (samples, ...) that are held, or frames (samples, T, ...), one for each step.

    Args:
        network: What takes them. One whose `input_encoding` is "frames" takes nothing else.
        images: As for `check_images`, or frames with an axis of at least T steps behind that of the samples.
        steps: T.

    Returns:
        float32 (samples, ...), or (samples, T, ...): further frames are left out.

    Raises:
        InputError: As for `check_images`; or there are fewer frames than steps.
    """
    array = any_inputs(network, images)
    if not are_frames(network, array):
        if network.input_encoding == "frames":
            raise InputError(
                f"The network takes frames of shape (samples, T, {_listed(network)}), one for each step, and these are "
                f"images of shape {array.shape}."
            )
        return array
    if network.input_steps is not None:
        check_held_throughout(network)
    if array.shape[1] < steps:
        raise InputError(
            f"There are {array.shape[1]} frames for each sample, and {steps} steps: give as many, or run fewer."
        )
    if isinstance(array, StoredImages):
        shape = (steps, *array.shape[2:])
        return array.changed(f"the first {steps} frames", lambda frames: np.ascontiguousarray(frames[:, :steps]), shape)
    return np.ascontiguousarray(array[:, :steps])


def held_images(network: SpikingNetwork, images: Images) -> ImageArray:
    """What an artificial network takes: images as they are, and of frames the mean over the steps.

    Raises:
        InputError: As for `check_images`, but for frames.
    """
    array = any_inputs(network, images)
    return mean_over_frames(array) if are_frames(network, array) else array


def are_frames(network: SpikingNetwork, array: ImageArray) -> bool:
    """Whether an array that the network takes has a frame for each step: (samples, T, ...)."""
    return array.ndim == len(network.input_shape) + 2


def any_inputs(network: SpikingNetwork, images: Images) -> ImageArray:
    """Images (samples, ...), or frames (samples, T, ...), whichever was given, as float32; errors as for both."""
    array = image_array(images, network.normalisation)
    shape = network.input_shape
    if array.shape[1:] != shape and (array.shape[2:] != shape or 0 in array.shape[:2]):
        expected = _listed(network)
        raise InputError(
            f"The network takes images of shape (samples, {expected}) or frames of shape (samples, T, {expected}), and "
            f"these have {array.shape}."
        )
    return array


def _listed(network: SpikingNetwork) -> str:
    return ", ".join(map(str, network.input_shape))


def check_steps(steps: int | None, network: SpikingNetwork) -> int:
    """The number of steps to run: `steps`, or what the network was calibrated for.

    Raises:
        InputError: Neither is known, or it is not a whole number of at least 1.
    """
    chosen = network.num_timesteps if steps is None else steps
    if chosen is None:
        raise InputError("The network was not calibrated for a number of steps: say how many with steps=.")
    return whole_number("The number of steps", chosen, 1, MAX_STEPS)


def check_held_throughout(network: SpikingNetwork) -> None:
    """Refuses a network whose input is held for some steps only, where no other network has a meaning.

    Raises:
        InputError: It is one, as every network is that was lowered.
    """
    if network.input_steps is not None:
        raise InputError(
            f"The input of this network is held for {network.input_steps} steps only, as of one that was lowered: it "
            "can be run and exported, and nothing else. Take the layer-wise network, and lower it at the end."
        )


def check_states(network: SpikingNetwork, states: SampleStates, samples: int) -> None:
    """Refuses states that are not those of `samples` samples of this network.

    Raises:
        InputError: A layer is not the network's, an array has another shape than (samples, ...), or an initial
            potential is not a finite number.
    """
    for kind, arrays in (("v_init", states.v_init), ("silent", states.silent)):
        for name, array in arrays.items():
            if name not in network.neurons:
                raise InputError(f"The states hold {kind} of a layer {name!r}, which the network does not have.")
            expected = (samples, *network.neurons[name].shape)
            if np.shape(array) != expected:
                raise InputError(f"{kind} of layer {name!r} must have shape {expected}, and has {np.shape(array)}.")
            if not np.isfinite(array).all():
                raise InputError(f"{kind} of layer {name!r} holds values that are not finite numbers.")


def with_normalisation_of(network: SpikingNetwork, images: Images) -> SpikingNetwork:
    """The network, which takes on the normalisation and class names of a `Dataset` if it has none of its own."""
    if not isinstance(images, Dataset):
        return network
    names = images.class_names
    if names is not None and len(names) != class_count(network.output_shape[-1]):
        names = None
    return replace(
        network,
        normalisation=network.normalisation or images.applied,
        class_names=network.class_names or names,
    )
