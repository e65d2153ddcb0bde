"""A graph of one step, run as its manifest's entry says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from cos_export.network import SpikingNetwork

Run = Callable[[dict[str, Any]], Mapping[str, Any]]


def in_runtime(model: onnx.ModelProto) -> Run:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


def in_evaluator(model: onnx.ModelProto, operators: Sequence[type[OpRun]] = ()) -> Run:
    evaluator = ReferenceEvaluator(model, new_ops=list(operators))
    return lambda feeds: dict(zip(evaluator.output_names, evaluator.run(None, feeds), strict=True))


def loop(
    run: Run, about: Mapping[str, Any], images: Any, first: dict[str, Any] | None = None
) -> tuple[dict[str, Any], Any]:
    """What a stranger does who has read the manifest: spikes by layer, and the last logits."""
    given = {state["input"]: np.zeros((len(images), *state["shape"]), state["type"]) for state in about["states"]}
    feeds = {about["images"]: images, about["start"]: np.array(first is None), **given, **(first or {})}
    fired: dict[str, list[Any]] = {state["layer"]: [] for state in about["states"]}
    total = 0
    for t in range(1, about["steps"] + 1):
        if about["step"] is not None:
            feeds[about["step"]] = np.array(t, np.int64)
        actual = run(feeds)
        feeds[about["start"]] = np.array(False)
        for state in about["states"]:
            feeds[state["input"]] = actual[state["output"]]
            inside = state["first_step"] <= t <= (state["last_step"] or t)
            assert inside or not actual[state["spikes"]].any()
            if inside:
                fired[state["layer"]].append(actual[state["spikes"]] != 0)
        total = total + actual[about["output"]].astype(np.float64)
    return {name: np.stack(values) for name, values in fired.items()}, total * about["readout_scale"] / about[
        "readout_steps"
    ]


def rounded(network: SpikingNetwork, images: Any) -> Any:
    """The integers that the input of a step takes; images as they are, of a network of float32."""
    coding = network.quantisation
    if coding is None:
        return images
    scaled = np.rint(images * np.float32(1 / coding.input_scale))
    kind = np.int8 if coding.input_minimum < 0 else np.uint8
    return scaled.clip(coding.input_minimum, coding.input_maximum).astype(kind)
