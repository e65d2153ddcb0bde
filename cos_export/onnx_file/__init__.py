"""Networks as ONNX files: every step unrolled into one graph, or one step to loop over."""

from cos_export.onnx_file.check import OnnxCheck
from cos_export.onnx_file.pruning import without_spikes
from cos_export.onnx_file.step import build_step_model, write_step
from cos_export.onnx_file.step_interface import StepInterface
from cos_export.onnx_file.writer import build_model, write_onnx

__all__ = [
    "OnnxCheck",
    "StepInterface",
    "build_model",
    "build_step_model",
    "without_spikes",
    "write_onnx",
    "write_step",
]
