"""The network: a NIR graph, what NIR has no field for, and what a run of it takes."""

from cos_export.network.inputs import (
    check_held_throughout,
    check_images,
    check_states,
    check_steps,
    with_normalisation_of,
)
from cos_export.network.spiking_network import (
    FloatArray,
    NeuronSpec,
    Quantisation,
    SampleStates,
    SpikingNetwork,
    check_network,
    half_potentials,
)

__all__ = [
    "FloatArray",
    "NeuronSpec",
    "Quantisation",
    "SampleStates",
    "SpikingNetwork",
    "check_held_throughout",
    "check_images",
    "check_network",
    "check_states",
    "check_steps",
    "half_potentials",
    "with_normalisation_of",
]
