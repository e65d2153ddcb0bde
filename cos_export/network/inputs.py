"""What a run of a network takes beside it: images, a number of steps, and states of each sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cos_export.bounds import MAX_STEPS
from cos_export.datasets import Dataset, Images, image_array
from cos_export.decisions import class_count
from cos_export.errors import InputError
from cos_export.network.neuron_spec import FloatArray
from cos_export.network.sample_states import SampleStates
from cos_export.network.spiking_network import SpikingNetwork
from cos_export.whole_number import whole_number

__all__ = ["check_held_throughout", "check_images", "check_states", "check_steps", "with_normalisation_of"]


def check_images(network: SpikingNetwork, images: Images) -> FloatArray:
    """`images` as a float32 array (samples, ...) that the network takes.

    What each type of image means, and where the network's normalisation is applied, is said at
    `cos_export.datasets.image_array`. The array may share the memory of `images`.

    Raises:
        InputError: The shape is not the network's, the type has no meaning, or a value is not finite.
    """
    array = image_array(images, network.normalisation)
    if array.shape[1:] != network.input_shape:
        expected = ", ".join(map(str, network.input_shape))
        raise InputError(f"The network takes images of shape (samples, {expected}), and these have {array.shape}.")
    return array


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
