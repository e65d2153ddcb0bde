"""`load`: a NIR file in a client, by the client's name."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Literal, get_args

from cos_export.clients.network import ClientNetwork
from cos_export.clients.neurons.layer import Neurons
from cos_export.clients.nir_graph import Layer, read_graph
from cos_export.errors import InputError, UnavailableError

__all__ = ["CLIENTS", "Client", "load"]

Client = Literal["sinabs", "snntorch", "norse", "spikingjelly"]

CLIENTS: tuple[Client, ...] = get_args(Client)


def load(path: str | os.PathLike[str], client: Client) -> ClientNetwork:
    """A network of `model.nir` as a module made of a client's own neurons.

    It fires the spikes of the file's contract (docs/formats.md): those of `cos_export.simulate`, every one in a network
    of integers, and up to the rounding of sums in float32.

    Args:
        path: A NIR file that this project has written.
        client: "sinabs", "snntorch", "norse" or "spikingjelly".

    Raises:
        InputError: There is no such file or client.
        NetworkError: The file holds no network of this project's schema, or one that the client cannot express; the
            message names the layer.
        UnavailableError: The client is not installed.
    """
    return ClientNetwork(read_graph(path), _neurons(client))


def _neurons(client: str) -> Callable[[Layer], Neurons]:
    if client not in CLIENTS:
        raise InputError(f"There is no client {client!r}. The clients are {', '.join(CLIENTS)}.")
    try:
        module = import_module(f"cos_export.clients.neurons.{client}")
    except ImportError as error:
        raise UnavailableError(
            f"{client} cannot be imported here: {error}. Install it in this environment, or run the bundle on the "
            f'target {client!r}, which has one of its own ("cos-export targets --install {client}").'
        ) from error
    made: Callable[[Layer], Neurons] = module.neurons
    return made
