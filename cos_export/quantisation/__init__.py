"""Fixed point: a network of integers that every backend computes alike, and the proof that its numbers fit."""

from cos_export.quantisation.loihi import LoihiLayer, loihi_report
from cos_export.quantisation.quantising import quantise
from cos_export.quantisation.ranges import LayerRange, check_ranges, layer_ranges

__all__ = ["LayerRange", "LoihiLayer", "check_ranges", "layer_ranges", "loihi_report", "quantise"]
