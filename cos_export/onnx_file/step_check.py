"""Whether a step graph, looped over, fires what the recorded run fired, in ONNX Runtime and ONNX's own evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from cos_export.errors import NetworkError, ParityError
from cos_export.network import FloatArray, SampleStates, SpikingNetwork, are_frames
from cos_export.network.workload import multiply_accumulates
from cos_export.onnx_file.session import plenty_of_seconds, run_session
from cos_export.onnx_file.step_interface import StepInterface
from cos_export.parity.local import check_local
from cos_export.simulation import mean_readout
from cos_export.simulation.fixed_point import quantise_input, readout_factors
from cos_export.simulation.input_train import input_train
from cos_export.simulation.program import Program
from cos_export.simulation.trace import Trace

__all__ = ["StepCheck", "check_step"]

SAMPLES = 3
"""Recorded samples that are run at most."""

LOOPED_WORK = 3e10
"""Multiplications of all steps above which fewer samples are run, and one at least."""

EVALUATED_WORK = 3e8
"""Multiplications that the evaluator may do: a few seconds of it, for it is written in Python."""

ONE_THREAD_WORK = 3e8
"""Multiplications of a step up to which one thread computes it."""

NEAR = 1e-3
"""Units of theta within which potentials of two runtimes may differ in one step of float32."""

Values = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class StepCheck:
    """How a step graph compares with the recorded run.

    Attributes:
        spike_slots: Neurons times steps times samples that were compared in ONNX Runtime.
        differing: How many spikes differ from the recorded ones; none in a network of integers.
        evaluated_steps: Steps that ONNX's reference evaluator has run besides, on one sample.
    """

    spike_slots: int
    differing: int
    evaluated_steps: int


def check_step(
    network: SpikingNetwork, path: Path, interface: StepInterface, images: FloatArray, reference: Trace
) -> StepCheck:
    """Loops over the graph in a file on a few samples of a recorded run.

    Args:
        network: What the file was made of.
        path: The file.
        interface: What it takes and returns.
        images: (samples, ...), or frames (samples, T, ...): those of the recorded run.
        reference: The recorded run, with the states that a per-sample method had set.

    Raises:
        NetworkError: ONNX or ONNX Runtime refuses the file.
        ParityError: It fires what its currents do not explain, or in integers anything else than the record.
    """
    images = images[: _samples(network, interface)]
    part = slice(0, len(images))
    states = None if reference.states is None else reference.states.part(part)
    loop = _looped(network, path, interface, images, states)
    trace = _trace(network, interface, images, loop)
    local = check_local(network, images, trace, states=states)
    if local.violations:
        first = local.listed[0]
        raise ParityError(
            f"The ONNX step graph fires or reads out what its currents do not explain: {local.violations:,} times, "
            f"first in layer {first.layer!r} in step {first.step}."
        )
    differing = sum(int((trace.spikes[name] != reference.spikes[name][:, part]).sum()) for name in network.layers)
    if network.quantisation is not None and (
        differing or not np.array_equal(trace.logits[-1], reference.logits[-1, part])
    ):
        raise ParityError(
            f"In fixed point no spike and no logit may differ: {differing} spikes of the ONNX step graph do."
        )
    _evaluate(network, path, interface, loop.evaluated)
    return StepCheck(sum(array.size for array in trace.spikes.values()), differing, len(loop.evaluated))


def _samples(network: SpikingNetwork, interface: StepInterface) -> int:
    """How many are run. Under the layer-wise schedule T + (T - 1) D steps compute all D layers each."""
    return int(np.clip(LOOPED_WORK // (multiply_accumulates(network) * interface.steps), 1, SAMPLES))


@dataclass(frozen=True)
class _Loop:
    """What is kept of a run in ONNX Runtime: potentials of all steps would take as much as the memory of a machine.

    Attributes:
        readout: What each step adds to it.
        spikes: By layer, what fired in each step of its window.
        evaluated: By step from 0, what went in and what came out, of the first sample: of the steps that ONNX's
            evaluator is to run.
    """

    readout: list[NDArray[Any]]
    spikes: dict[str, list[NDArray[np.bool_]]]
    evaluated: dict[int, tuple[Values, Values]]


def _looped(
    network: SpikingNetwork, path: Path, interface: StepInterface, images: FloatArray, states: SampleStates | None
) -> _Loop:
    """Runs the graph in ONNX Runtime, step by step."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if multiply_accumulates(network) * len(images) < ONE_THREAD_WORK:
        # Many short steps: threads that wait for the next one cost more than they compute.
        options.intra_op_num_threads = 1
    loop = _Loop([], {state.layer: [] for state in interface.states}, {})
    count = int(np.clip(EVALUATED_WORK // multiply_accumulates(network), 1, interface.steps))
    chosen = set(np.linspace(0, interface.steps - 1, count).round().astype(int).tolist())
    try:
        onnx.checker.check_model(str(path), full_check=True)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_outputs()]
        seconds = plenty_of_seconds(network, len(images), 1)
        integers = _integers(network, interface, images)
        feeds = _first(network, interface, len(images), states)
        for t in range(1, interface.steps + 1):
            # What is sent after the last frame is not looked at.
            feeds[interface.images] = (
                integers[:, min(t, integers.shape[1]) - 1] if are_frames(network, images) else integers
            )
            if interface.step is not None:
                feeds[interface.step] = np.array(t, np.int64)
            values = run_session(session, names, feeds, seconds)
            step = dict(zip(names, values, strict=True))
            loop.readout.append(step[interface.output])
            for state in interface.states:
                if state.first_step <= t and (state.last_step is None or t <= state.last_step):
                    loop.spikes[state.layer].append(step[state.spikes] != 0)
            if t - 1 in chosen:
                loop.evaluated[t - 1] = _of_one_sample(feeds), _of_one_sample(step)
            feeds |= {state.input: step[state.output] for state in interface.states}
            feeds[interface.start] = np.array(False)
    except Exception as error:
        # ONNX Runtime's errors have no other common base.
        raise NetworkError(f"The ONNX step graph that was built cannot be run: {error}") from error
    return loop


def _of_one_sample(values: Values) -> Values:
    return {name: value[:1].copy() if np.ndim(value) else value for name, value in values.items()}


def _integers(network: SpikingNetwork, interface: StepInterface, images: FloatArray) -> NDArray[Any]:
    """The images or frames as the graph takes them."""
    integers = quantise_input(torch.from_numpy(images), network.quantisation).numpy()
    return integers.astype(interface.images_type)


def _first(
    network: SpikingNetwork, interface: StepInterface, samples: int, states: SampleStates | None
) -> dict[str, NDArray[Any]]:
    """What goes into the first step, but for its images and number."""
    feeds: dict[str, NDArray[Any]] = {interface.start: np.array(states is None)}
    for state in interface.states:
        shape = (samples, *state.shape)
        start = np.zeros(shape, np.float32) if states is None else states.v_init.get(state.layer)
        if start is None:
            start = np.broadcast_to(network.neurons[state.layer].v_init, shape)
        feeds[state.input] = (np.floor(start) if state.type == "int32" else start).astype(state.type)
        if state.silent is not None:
            known = None if states is None else states.silent.get(state.layer)
            feeds[state.silent] = np.zeros(shape, np.bool_) if known is None else known
    return feeds


def _trace(network: SpikingNetwork, interface: StepInterface, images: FloatArray, loop: _Loop) -> Trace:
    """The run as every target returns it: the spikes of each layer's own window, and the logits of each step."""
    spikes = {name: np.stack(fired) for name, fired in loop.spikes.items()}
    steps = interface.readout_steps
    read = torch.from_numpy(np.stack(loop.readout).astype(np.float32))
    if network.schedule == "synchronous":
        return Trace(mean_readout(read, steps, network.quantisation).numpy(), spikes)
    # What comes by a shorter path is read out in earlier steps: of the graph's own logits there are the last alone.
    inputs = input_train(network, torch.from_numpy(images), steps)

    def fired(source: str) -> Tensor:
        return torch.from_numpy(spikes[source]).to(torch.float32) if source in spikes else inputs

    train = Program(network).currents(network.output_name, fired)
    logits = mean_readout(train, steps, network.quantisation)
    total = read.sum(0)
    factor = None if network.quantisation is None else float(readout_factors(network.quantisation, steps)[-1])
    logits[-1] = total / steps if factor is None else total * factor
    return Trace(logits.numpy(), spikes)


def _evaluate(
    network: SpikingNetwork, path: Path, interface: StepInterface, steps: Mapping[int, tuple[Values, Values]]
) -> None:
    """Runs some steps of one sample in ONNX's reference evaluator, each from what went into it in ONNX Runtime."""
    evaluator = ReferenceEvaluator(str(path))
    for t, (feeds, expected) in steps.items():
        actual = dict(zip(evaluator.output_names, evaluator.run(None, dict(feeds)), strict=True))
        if network.quantisation is not None:
            wrong = [name for name, value in expected.items() if not np.array_equal(actual[name], value)]
        else:
            wrong = _beyond_rounding(network, interface, feeds, expected, actual)
        if wrong:
            raise ParityError(
                f"In step {t + 1} ONNX's reference evaluator gives another {wrong[0]!r} than ONNX Runtime, from the "
                "same inputs: the ONNX step graph does not mean the same everywhere."
            )


def _beyond_rounding(
    network: SpikingNetwork, interface: StepInterface, feeds: Values, expected: Values, actual: Values
) -> list[str]:
    """The first layer whose potentials differ beyond rounding; none behind a spike that rounding has changed."""
    for state in interface.states:
        theta = network.neurons[state.layer].threshold
        one, other = expected[state.spikes][0] != 0, actual[state.spikes][0] != 0
        before, after = expected[state.output][0], actual[state.output][0]
        # Where one has fired and the other has not, the second's potential is m, right below the threshold.
        apart = np.where(one == other, np.abs(before - after), np.abs(np.where(one, after, before) - theta))
        if not bool((apart <= NEAR * (theta + np.abs(np.where(one, after, before)))).all()):
            return [state.output]
        if bool((one != other).any()):
            return []
    near = np.allclose(expected[interface.output], actual[interface.output], rtol=1e-3, atol=1e-3)
    return [] if near else [interface.output]
