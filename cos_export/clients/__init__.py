"""A NIR file of this project as a module of another simulator's own neurons.

    from cos_export.clients import load
    network = load("out/digits/model.nir", client="norse")
    logits = network(images)                # (T, batch, classes); network.spikes has the spikes by layer

This needs numpy, h5py, torch and the client, and nothing else: clients pin versions of nir that differ from ours.
`nir_graph` reads the file, without torch, `synapses` makes modules of what has weights, `neurons/` has one for each
client, and `network` runs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cos_export.clients.loading import CLIENTS, Client, load
    from cos_export.clients.network import ClientNetwork

__all__ = ["CLIENTS", "Client", "ClientNetwork", "load"]


def __getattr__(name: str) -> Any:
    """A public name when it is first used: simulators that are not made of torch read `nir_graph` without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'network' if name == 'ClientNetwork' else 'loading'}"), name)
