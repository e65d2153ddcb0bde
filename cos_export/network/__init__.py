"""The network: a NIR graph, and what NIR has no field for."""

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
    "check_network",
    "half_potentials",
]
