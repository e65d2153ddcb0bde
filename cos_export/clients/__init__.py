"""A NIR file of this project as a module of another simulator's own neurons.

    from cos_export.clients import load
    network = load("out/digits/model.nir", client="norse")
    logits = network(images)                # (T, batch, classes); network.spikes has the spikes by layer

This needs numpy, h5py, torch and the client, and nothing else: clients pin versions of nir that differ from ours.
`nir_graph` reads the file, `synapses` makes modules of what has weights, `neurons/` has a module for each client, and
`network` runs them.
"""

from cos_export.clients.loading import CLIENTS, Client, load
from cos_export.clients.network import ClientNetwork

__all__ = ["CLIENTS", "Client", "ClientNetwork", "load"]
