"""Networks as ONNX files: every step unrolled into one graph that any ONNX runtime executes."""

from cos_export.onnx_file.check import OnnxCheck
from cos_export.onnx_file.pruning import without_spikes
from cos_export.onnx_file.writer import build_model, write_onnx

__all__ = ["OnnxCheck", "build_model", "without_spikes", "write_onnx"]
