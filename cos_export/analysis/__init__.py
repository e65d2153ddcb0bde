"""Where a network loses what the artificial one computes: layer by layer, and why."""

from cos_export.analysis.layer_errors import layer_errors
from cos_export.analysis.result import LayerDivergences, LayerErrors, Output
from cos_export.analysis.split import Split

__all__ = ["LayerDivergences", "LayerErrors", "Output", "Split", "layer_errors"]
