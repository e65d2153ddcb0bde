"""From a trained PyTorch network to calibrated integrate-and-fire neurons, as NIR and ONNX, with proof.

    import cos_export as ce
    network = ce.capture(model, example_input)
    network = ce.calibrate(network, images, method="mean-matching", steps=4)
    trace = ce.simulate(network, images, steps=4)
    bundle = ce.export(network, "out/", steps=4, golden=images[:64])
    result = ce.verify(bundle, targets=["onnxruntime", "lava"])

Names are imported when they are first used, so that `import cos_export` is quick.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cos_export.version import __version__ as __version__

if TYPE_CHECKING:
    from calibration import COS, FTBC, OPI, RMP, SRP, BiasCorrection, calibrate, method_of
    from calibration.offset_spikes import offset_spikes
    from calibration.thresholds import relu_thresholds
    from cos_export.bundle import Bundle, load
    from cos_export.capturing import CheckResult, Finding, capture, check_model, inspect_module
    from cos_export.datasets import Dataset, load_dataset
    from cos_export.errors import CosExportError
    from cos_export.exporting import export
    from cos_export.network import NeuronSpec, SampleStates, SpikingNetwork
    from cos_export.nir_file import read_nir, write_nir
    from cos_export.onnx_file import write_onnx
    from cos_export.qcfs import QCFS
    from cos_export.quantisation import quantise
    from cos_export.simulation import ann_logits, simulate
    from cos_export.simulation.trace import Trace
    from cos_export.training import train
    from targets.verification import verify

__all__ = [
    "COS",
    "FTBC",
    "OPI",
    "QCFS",
    "RMP",
    "SRP",
    "BiasCorrection",
    "Bundle",
    "CheckResult",
    "CosExportError",
    "Dataset",
    "Finding",
    "NeuronSpec",
    "SampleStates",
    "SpikingNetwork",
    "Trace",
    "ann_logits",
    "calibrate",
    "capture",
    "check_model",
    "export",
    "inspect_module",
    "load",
    "load_dataset",
    "method_of",
    "offset_spikes",
    "quantise",
    "read_nir",
    "relu_thresholds",
    "simulate",
    "train",
    "verify",
    "write_nir",
    "write_onnx",
]

_HOMES = {
    "COS": "calibration",
    "FTBC": "calibration",
    "OPI": "calibration",
    "QCFS": "cos_export.qcfs",
    "RMP": "calibration",
    "SRP": "calibration",
    "BiasCorrection": "calibration",
    "Bundle": "cos_export.bundle",
    "CheckResult": "cos_export.capturing",
    "CosExportError": "cos_export.errors",
    "Dataset": "cos_export.datasets",
    "Finding": "cos_export.capturing",
    "NeuronSpec": "cos_export.network",
    "SampleStates": "cos_export.network",
    "SpikingNetwork": "cos_export.network",
    "Trace": "cos_export.simulation.trace",
    "ann_logits": "cos_export.simulation",
    "calibrate": "calibration",
    "capture": "cos_export.capturing",
    "check_model": "cos_export.capturing",
    "export": "cos_export.exporting",
    "inspect_module": "cos_export.capturing",
    "load": "cos_export.bundle",
    "load_dataset": "cos_export.datasets",
    "method_of": "calibration",
    "offset_spikes": "calibration.offset_spikes",
    "quantise": "cos_export.quantisation",
    "read_nir": "cos_export.nir_file",
    "relu_thresholds": "calibration.thresholds",
    "simulate": "cos_export.simulation",
    "train": "cos_export.training",
    "verify": "targets.verification",
    "write_nir": "cos_export.nir_file",
    "write_onnx": "cos_export.onnx_file",
}


_RENAMED = {"activate": "ann_logits"}
"""Names of the version before, each with its new one; they go in the next version."""


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(f"cos_export.{name} is now cos_export.{new}.", DeprecationWarning, stacklevel=2)
        return getattr(import_module(__name__), new)
    if name not in _HOMES:
        raise AttributeError(f"module 'cos_export' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _check_for_shadows() -> None:
    """Notices a user's own `calibration.py` or `targets.py` that would be imported in place of ours."""
    home = Path(__file__).resolve().parent.parent
    for name in ("calibration", "targets"):
        spec = find_spec(name)
        found = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        if found != home / name / "__init__.py":
            seen = "is not installed beside it" if found is None else f"is hidden by {found}: rename that"
            raise ImportError(f"cos_export needs its own package {name!r}, which {seen}.")


_check_for_shadows()
