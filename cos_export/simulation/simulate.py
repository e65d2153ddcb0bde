"""`simulate`: the PyTorch reference run that every target is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from cos_export.bounds import MOST_BATCH
from cos_export.datasets import Images
from cos_export.device import full_precision, resolve_device
from cos_export.errors import InputError
from cos_export.network import (
    SampleStates,
    SpikingNetwork,
    are_frames,
    check_inputs,
    check_network,
    check_states,
    check_steps,
)
from cos_export.network.schedule import summed_steps
from cos_export.network.workload import samples_at_once
from cos_export.progress import Progress, silent
from cos_export.simulation.finite import check_finite
from cos_export.simulation.fixed_point import check_potentials
from cos_export.simulation.layerwise import LayerwiseProgram, WindowRun
from cos_export.simulation.neuron import NeuronTensors, Run, integrate_and_fire, with_states
from cos_export.simulation.per_sample import Observer, PerSampleCalibration
from cos_export.simulation.program import Program
from cos_export.simulation.readout import mean_readout
from cos_export.simulation.trace import Recording, Trace
from cos_export.whole_number import whole_number

__all__ = ["simulate"]


def simulate(
    network: SpikingNetwork,
    images: Images,
    steps: int | None = None,
    *,
    calibration: PerSampleCalibration | None = None,
    states: SampleStates | None = None,
    device: str | torch.device = "auto",
    batch_size: int = 64,
    record_spikes: bool = True,
    record_potentials: bool = False,
    record_states: bool = True,
    observe: Observer | None = None,
    progress: Progress = silent,
) -> Trace:
    """Runs a network in PyTorch.

    Args:
        network: What to run.
        images: (samples, ...) analog inputs, each held for all steps: uint8 pixels, floats as the network takes them,
            or a data set, with labels or without (`cos_export.datasets.image_array`). Or frames
            (samples, at least T, ...), such as those of event cameras: one input for each step.
        steps: T; by default what the network was calibrated for.
        calibration: A per-sample method, such as `COS(rho=4)`, to run with.
        states: States of each sample that an earlier calibration has set, in place of `calibration`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch_size: Samples computed at once, on a CPU fewer where layers are large (`samples_at_once`). Few stay in
            the processor's cache; a GPU may like more.
        record_spikes: Whether to keep every spike. Without, memory does not grow with the depth.
        record_potentials: Whether to keep every potential after the reset.
        record_states: Whether to keep what `calibration` set for each sample: a number for each neuron and sample.
        observe: To be told of each layer's run, batch after batch.
        progress: Told of each batch.

    Returns:
        The trace, with spikes of shape (steps, samples, ...) by layer.

    Raises:
        InputError: The images, steps or states do not fit the network.
        NetworkError: A sum is beyond what float32 holds, or a potential of integers beyond 24 bits; the message names
            the layer.
        StorageError: What is recorded does not fit in memory, and the temporary folder cannot hold it.
        UnavailableError: The device is not there.
    """
    check_network(network)
    steps = check_steps(steps, network)
    array = check_inputs(network, images, steps)
    if calibration is not None and are_frames(network, array):
        raise InputError(
            f"{calibration.name!r} pre-simulates an input that is held, and frames change from step to step. Take a "
            "static method, or the mean over the steps: frames.mean(axis=1)."
        )
    if calibration is not None and states is not None:
        raise InputError("Give calibration or states, not both.")
    batch_size = whole_number("batch_size", batch_size, 1, MOST_BATCH)
    if states is not None:
        check_states(network, states, len(array))
    where = resolve_device(device)
    extra = 0 if calibration is None else calibration.presimulated_steps
    recorded = record_spikes or record_potentials
    held = max(steps, extra) if recorded else max(steps, extra) // summed_steps(network.schedule, steps)
    batch_size = samples_at_once(network, held, batch_size, where)
    run = _runner(network, steps, calibration, where)
    recording = Recording(
        network,
        len(array),
        steps,
        spikes=record_spikes,
        potentials=record_potentials,
        states=record_states and calibration is not None,
    )
    recorder = _Recorder(network, recording, record_spikes, record_potentials, observe)
    with torch.no_grad(), full_precision():
        for start in range(0, len(array), batch_size):
            progress(f"simulating {steps} steps", start, len(array))
            batch = slice(start, min(start + batch_size, len(array)))
            tensor = torch.from_numpy(array[batch])
            outputs, initial = run(tensor, None if states is None else states.part(batch), recorder)
            logits = mean_readout(outputs, steps, network.quantisation)
            check_finite("The logits", logits)
            recording.add(
                Trace(
                    logits=logits.cpu().numpy(),
                    rho=0 if calibration is None else calibration.rho,
                    states=initial if record_states and states is None else None,
                )
            )
    progress(f"simulating {steps} steps", len(array), len(array))
    trace = recording.trace()
    return replace(trace, states=states) if record_states and states is not None else trace


class _Recorder:
    """Keeps what the observer is asked to keep, on the host."""

    def __init__(
        self,
        network: SpikingNetwork,
        recording: Recording,
        spikes: bool,
        potentials: bool,
        observe: Observer | None,
    ) -> None:
        self._recording, self._observe, self._quantisation = recording, observe, network.quantisation
        self.keep_spikes, self.keep_potentials = spikes, potentials

    def __call__(self, name: str, run: Run | WindowRun) -> None:
        if self._observe is not None:
            self._observe(name, run)
        # A potential that has left the finite numbers does not come back, unless it is reset to a value: neither over
        # the steps nor, with n <= M / theta spikes, over a window.
        left = run.charged if isinstance(run, WindowRun) else run.residual
        check_finite(f"The potentials of layer {name!r}", left)
        check_potentials(name, left, self._quantisation)
        if self.keep_spikes:
            self._recording.spikes.add(name, run.fired.cpu().numpy())
        potentials = run.potentials if self.keep_potentials else None
        if potentials is not None:
            self._recording.potentials.add(name, potentials.cpu().numpy())


_Runner = Callable[[Tensor, SampleStates | None, _Recorder], tuple[Tensor, SampleStates | None]]
"""(images, states of each sample or None, recorder) -> what reaches the Output, and the states that were run with."""


def _runner(
    network: SpikingNetwork, steps: int, calibration: PerSampleCalibration | None, device: torch.device
) -> _Runner:
    """How a batch of this network runs, by its schedule and its per-sample method."""
    if network.schedule == "layerwise":
        if calibration is not None:
            raise InputError(
                f"{calibration.name!r} corrects what a layer fires before all of its input has come, and under the "
                "layer-wise schedule none does: it has nothing to correct. Run it without, or synchronously."
            )
        return _layer_after_layer(LayerwiseProgram(network, steps, device))
    program = Program(network, device)
    return _all_at_once(program, steps) if calibration is None else _calibrated(program, steps, calibration)


def _all_at_once(program: Program, steps: int) -> _Runner:
    def run(images: Tensor, states: SampleStates | None, recorder: _Recorder) -> tuple[Tensor, SampleStates | None]:
        def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
            neuron = with_states(neuron, name, states, program.device)
            potentials = recorder.keep_potentials
            layer = integrate_and_fire(currents, steps, neuron, record_potentials=potentials, overwrite=True)
            recorder(name, layer)
            return layer.spikes

        return program.propagate(images.to(program.device), rule, steps), states

    return run


def _calibrated(program: Program, steps: int, calibration: PerSampleCalibration) -> _Runner:
    def run(images: Tensor, states: SampleStates | None, recorder: _Recorder) -> tuple[Tensor, SampleStates | None]:
        return calibration.run(program, images.to(program.device), steps, recorder)

    return run


def _layer_after_layer(program: LayerwiseProgram) -> _Runner:
    def run(images: Tensor, states: SampleStates | None, recorder: _Recorder) -> tuple[Tensor, SampleStates | None]:
        outputs = program.run(
            images.to(program.device),
            lambda name, neuron: with_states(neuron, name, states, program.device),
            recorder,
        )
        return outputs, states

    return run
