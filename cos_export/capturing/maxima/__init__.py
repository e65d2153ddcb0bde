"""Maxima of spike counts, exactly: max(a, b) = a + max(b - a, 0), and the last term is a spiking neuron."""

from cos_export.capturing.maxima.elementwise import larger
from cos_export.capturing.maxima.pooling import Windows, pooled

__all__ = ["Windows", "larger", "pooled"]
