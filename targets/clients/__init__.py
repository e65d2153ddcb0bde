"""Simulators of spiking networks that run model.nir on their own neurons, in an environment of their own."""

from targets.clients.client_target import ClientTarget
from targets.clients.environment import CLIENTS_SOFTWARE
from targets.clients.installation import install

__all__ = ["CLIENTS_SOFTWARE", "ClientTarget", "install"]
