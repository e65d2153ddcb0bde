"""Networks of the families that people bring, in our own words: narrow, on small images, with random weights."""

from topologies.joined import JOINED
from topologies.plain import PLAIN
from topologies.residual import RESIDUAL

__all__ = ["TOPOLOGIES"]

TOPOLOGIES = PLAIN | RESIDUAL | JOINED
"""By name: the shape of one input, and what builds the network."""
