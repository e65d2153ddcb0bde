"""The network: a NIR graph, what NIR has no field for, and what a run of it takes."""

from cos_export.network.inputs import (
    any_inputs,
    are_frames,
    check_held_throughout,
    check_images,
    check_inputs,
    check_states,
    check_steps,
    held_images,
    with_normalisation_of,
)
from cos_export.network.neuron_spec import FloatArray, NeuronSpec, half_potentials
from cos_export.network.quantisation import Quantisation
from cos_export.network.sample_states import SampleStates
from cos_export.network.spiking_network import SpikingNetwork, check_network

__all__ = [
    "FloatArray",
    "NeuronSpec",
    "Quantisation",
    "SampleStates",
    "SpikingNetwork",
    "any_inputs",
    "are_frames",
    "check_held_throughout",
    "check_images",
    "check_inputs",
    "check_network",
    "check_states",
    "check_steps",
    "half_potentials",
    "held_images",
    "with_normalisation_of",
]
