"""What one image costs: steps, operations, bytes, and energy by the usual figures."""

from cos_export.costing.costs import Costs, costs, costs_of

__all__ = ["Costs", "costs", "costs_of"]
