"""What whoever reads a network's readout is to know of it, in words."""

from __future__ import annotations

from cos_export.network.spiking_network import SpikingNetwork

__all__ = ["readout_notes"]

_DECIDING_NOTHING = ("softmax", "log_softmax", "sigmoid", "log_sigmoid", "special_expit")


def readout_notes(network: SpikingNetwork) -> list[str]:
    """A line for each thing to know, or none.

    Args:
        network: Whose `left_out`, `readout_shape` and `output_shape` are told of.
    """
    notes = []
    if network.left_out:
        named = ", ".join(network.left_out)
        why = (
            "the readout is what goes into it, and the decision is the same"
            if all(name.strip("_") in _DECIDING_NOTHING for name in network.left_out)
            else "apply it to the readout for what the module returns"
        )
        notes.append(f"The module ends in {named}, which the network leaves out: {why}.")
    if network.readout_shape is not None:
        shape = ", ".join(map(str, network.readout_shape))
        notes.append(f"The module gives ({shape}) for each sample: the readout is that on one axis, row by row.")
    if network.output_shape == (1,):
        notes.append("The readout is one logit: above 0 it decides for class 1, else for class 0.")
    return notes
