"""The Lava simulator as a target."""

from targets.lava.environment import LavaEnvironment, find, install
from targets.lava.lava_target import LavaTarget, run_network

__all__ = ["LavaEnvironment", "LavaTarget", "find", "install", "run_network"]
