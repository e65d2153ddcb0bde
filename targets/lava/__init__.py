"""The Lava simulator as a target."""

from targets.lava.environment import LAVA, find
from targets.lava.installation import install
from targets.lava.lava_target import LavaTarget, run_network
from targets.lava.netx import write_netx

__all__ = ["LAVA", "LavaTarget", "find", "install", "run_network", "write_netx"]
