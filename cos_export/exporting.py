"""`export`: a calibrated network as a bundle, each file checked before the whole is put in place."""

from __future__ import annotations

import json
import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cos_export.atomic_file import atomic_write
from cos_export.bounds import LEAST_OPSET, MOST_OPSET
from cos_export.bundle.file_names import GOLDEN_FILE, MANIFEST, NIR_FILE, ONNX_FILE, REPORT_FILE, STEP_FILE
from cos_export.bundle.folder import Bundle, sha256_of
from cos_export.bundle.golden import Golden, write_golden
from cos_export.bundle.manifest import BUNDLE_FORMAT, check_manifest, check_metrics
from cos_export.bundle.replacing import check_destination, replacing_folder
from cos_export.bundle.target import Target
from cos_export.costing import costs_of
from cos_export.costing.counted_run import counted_trace
from cos_export.datasets import Dataset, Images, check_class_names, class_numbers, in_memory
from cos_export.decisions import class_count, decisions
from cos_export.errors import InputError
from cos_export.network import (
    SpikingNetwork,
    are_frames,
    check_inputs,
    check_network,
    check_steps,
    with_normalisation_of,
)
from cos_export.nir_file import write_nir
from cos_export.nir_file.type_check import TypeCheckNotice, type_check_note
from cos_export.onnx_file import write_onnx, write_step
from cos_export.onnx_file.builder import MAX_BYTES, OPSET
from cos_export.parity.verification import ParityResult, verify
from cos_export.progress import Progress, silent
from cos_export.quantisation import loihi_report
from cos_export.reading.json_file import parse_json
from cos_export.report import parity_summary, render_report, report_document
from cos_export.simulation import PerSampleCalibration, check_per_sample, simulate
from cos_export.version import __version__
from cos_export.whole_number import whole_number

__all__ = ["export", "export_and_verify"]

PACKAGES = ("torch", "numpy", "nir", "onnx", "onnxruntime", "h5py")


def export(
    network: SpikingNetwork,
    path: str | os.PathLike[str],
    steps: int | None = None,
    *,
    golden: Images,
    labels: ArrayLike | None = None,
    calibration: PerSampleCalibration | None = None,
    metrics: Mapping[str, Any] | None = None,
    strip_v_reset: bool = False,
    device: str = "auto",
    opset: int = OPSET,
    external_above: int = MAX_BYTES,
    progress: Progress = silent,
) -> Bundle:
    """Writes a bundle: `export_and_verify` without targets."""
    bundle, _ = export_and_verify(
        network,
        path,
        steps,
        golden=golden,
        labels=labels,
        calibration=calibration,
        metrics=metrics,
        strip_v_reset=strip_v_reset,
        device=device,
        opset=opset,
        external_above=external_above,
        progress=progress,
    )
    return bundle


def export_and_verify(
    network: SpikingNetwork,
    path: str | os.PathLike[str],
    steps: int | None = None,
    *,
    golden: Images,
    labels: ArrayLike | None = None,
    calibration: PerSampleCalibration | None = None,
    metrics: Mapping[str, Any] | None = None,
    strip_v_reset: bool = False,
    targets: Sequence[Target] = (),
    device: str = "auto",
    opset: int = OPSET,
    external_above: int = MAX_BYTES,
    progress: Progress = silent,
) -> tuple[Bundle, ParityResult | None]:
    """Writes a bundle: model.nir, model.onnx, model_step.onnx, golden.npz, report.html and manifest.json.

    The ONNX graph is run in ONNX Runtime and the NIR file read back before either counts as written. If targets are
    given, the golden inputs run on them before the bundle is put in place, and the report says what they fired. A
    failed parity does not stop the export: look at the result's `passed`.

    Args:
        network: The network, calibrated by a static method, or not at all for a per-sample one.
        path: The bundle's folder. An earlier bundle there is replaced.
        steps: T; by default what the network was calibrated for.
        golden: Images or frames for the golden run, as for `cos_export.simulate`; with frames model.nir and
            model.onnx take frames, too. What is kept is what the network takes, after
            its normalisation. The network takes on the normalisation and class names of a `Dataset` if it has none.
        labels: Their classes, if known; by default those of a `Dataset`.
        calibration: The per-sample method to run with, whose states for the golden inputs go into golden.npz.
        metrics: More for the manifest, such as accuracies; plain JSON values.
        strip_v_reset: Leave the `v_reset` fields out of model.nir, on which readers of nir 1.0.4 and older fail.
        targets: Where to verify.
        device: Where the reference runs.
        opset: Of ONNX, from 13 to 23.
        external_above: Bytes of arrays that an ONNX file may hold; of more, they lie in a file beside it.
        progress: Told as it goes on.

    Returns:
        The bundle, and the parity of the targets or None if there were none.

    Raises:
        InputError: The images, labels, steps or metrics do not fit, or the folder holds something else.
        NetworkError: In a network of integers, a range does not fit; the message names the layer.
    """
    check_network(network)
    whole_number("The opset", opset, LEAST_OPSET, MOST_OPSET)
    destination = check_destination(path)
    check_metrics(metrics or {})
    network = with_normalisation_of(network, golden)
    steps = check_steps(steps, network)
    images = in_memory(check_inputs(network, golden, steps))
    if are_frames(network, images):
        network = replace(network, input_encoding="frames")
    if labels is None and isinstance(golden, Dataset):
        check_class_names(golden.class_names, golden.name, network.class_names, "the network")
        labels = golden.labels
    known, called = class_count(network.output_shape[-1]), "The labels of the golden inputs"
    if labels is not None and len(network.output_shape) != 1:
        raise InputError(f"{called} need a readout (classes,), and this network's has {network.output_shape}.")
    classes = None if labels is None else class_numbers(labels, len(images), known, called)
    check_per_sample(network, calibration)
    network = replace(network, num_timesteps=steps)
    limits = None if network.quantisation is None else loihi_report(network, steps, per_sample=calibration is not None)
    if calibration is not None:
        network = replace(
            network,
            method=calibration.name,
            rho=calibration.rho,
            calibration=calibration.record(),
            calibrated_timesteps=None,
        )
    reference = simulate(network, images, steps, calibration=calibration, device=device, progress=progress)
    with replacing_folder(path) as staging:
        progress("writing the bundle", 0, 5)
        refused = write_nir(network, staging / NIR_FILE, strip_v_reset=strip_v_reset)
        progress("writing the bundle", 1, 5)
        write_onnx(
            network,
            staging / ONNX_FILE,
            steps,
            calibration=calibration,
            opset=opset,
            external_above=external_above,
        )
        progress("writing the bundle", 2, 5)
        step = write_step(
            network,
            staging / STEP_FILE,
            steps,
            images,
            reference,
            opset=opset,
            external_above=external_above,
        )
        progress("writing the bundle", 3, 5)
        write_golden(staging / GOLDEN_FILE, Golden(images, reference, classes))
        progress("writing the bundle", 4, 5)
        manifest = _manifest(network, steps, len(images), metrics)
        manifest["step"] = step.to_dict()
        counted = counted_trace(
            network, images, reference, calibration, device=device, activity=True, progress=progress
        )
        manifest["costs"] = costs_of(counted).to_dict()
        answers = decisions(reference.logits[-1])
        # The report and the targets read it from golden.npz: it is not held twice.
        del reference
        if refused:
            manifest["refused_by_nir"] = refused
            warnings.warn(type_check_note(refused), TypeCheckNotice, stacklevel=2)
        if classes is not None:
            manifest["golden_correct"] = int((answers == classes).sum())
        if network.quantisation is not None and limits is not None:
            manifest["quantisation"] = asdict(network.quantisation) | {"layers": [layer.to_dict() for layer in limits]}
        draft = Bundle(staging, manifest)
        parity = verify(draft, targets, progress=progress) if targets else None
        manifest["parity"] = None if parity is None else parity_summary(parity)
        _write(staging / REPORT_FILE, render_report(report_document(draft)))
        manifest["files"] = {
            file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in sorted(staging.iterdir())
        }
        text = json.dumps(manifest, indent=2, allow_nan=False) + "\n"
        check_manifest(parse_json(text, MANIFEST), MANIFEST)
        _write(staging / MANIFEST, text)
        progress("writing the bundle", 5, 5)
    return Bundle(destination, manifest), parity


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as draft:
        # Names of files that are not UTF-8 are shown with their bytes as escapes.
        draft.write_text(text, "utf-8", "backslashreplace")


def _manifest(network: SpikingNetwork, steps: int, samples: int, metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "format": BUNDLE_FORMAT,
        "num_timesteps": steps,
        "schedule": network.schedule,
        "input_encoding": network.input_encoding,
        "rho": network.rho,
        "total_timesteps": network.rho + steps,
        "method": network.method,
        "calibration": None if network.calibration is None else dict(network.calibration),
        "calibrated_timesteps": network.calibrated_timesteps,
        "numerics": network.numerics,
        "normalisation": None if network.normalisation is None else network.normalisation.to_dict(),
        "classes": None if network.class_names is None else list(network.class_names),
        "input_shape": list(network.input_shape),
        "output_shape": list(network.output_shape),
        "readout_shape": None if network.readout_shape is None else list(network.readout_shape),
        "left_out": list(network.left_out),
        "neurons": network.neuron_count,
        "golden_samples": samples,
        "layers": [_layer(network, name) for name in network.layers],
        "versions": {
            "cos-export": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in PACKAGES},
        },
        "metrics": dict(metrics or {}),
    }


def _layer(network: SpikingNetwork, name: str) -> dict[str, Any]:
    spec = network.neurons[name]
    offset = spec.v_init / spec.threshold
    return {
        "name": name,
        "shape": list(spec.shape),
        "threshold_min": float(spec.threshold.min()),
        "threshold_max": float(spec.threshold.max()),
        "v_init_min": float(offset.min()),
        "v_init_mean": float(offset.mean(dtype=np.float64)),
        "v_init_max": float(offset.max()),
        "levels": spec.levels,
    }
