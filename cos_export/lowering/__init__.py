"""Layer-wise networks as synchronous ones, for executors that know no windows."""

from cos_export.lowering.network import lowered

__all__ = ["lowered"]
