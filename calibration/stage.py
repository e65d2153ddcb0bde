"""The calibration stage: `calibrate`, which streams the data through a static method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from calibration.checkpoint import Checkpoint
from calibration.data import calibration_data
from calibration.identity import identity
from calibration.methods.method import CalibrationRun, Method, StaticMethod
from calibration.records import method_named
from cos_export.bounds import MOST_BATCH
from cos_export.datasets import Images
from cos_export.device import full_precision, resolve_device
from cos_export.errors import InputError
from cos_export.network import (
    SpikingNetwork,
    check_held_throughout,
    check_network,
    check_steps,
    with_normalisation_of,
)
from cos_export.network.schedule import Schedule, check_schedule, summed_steps
from cos_export.network.workload import samples_at_once
from cos_export.processes import failing_together, is_main, local_device, process_count, process_group
from cos_export.progress import Progress, silent
from cos_export.simulation.fixed_point import round_to_half_integers
from cos_export.whole_number import whole_number

__all__ = ["DEFAULT_METHOD", "calibrate", "static_only"]

DEFAULT_METHOD = "mean-matching"
"""What `calibrate` does where no method is named. The commands try several and export the best (`choices.Auto`);
that takes the artificial network and images that nothing is calibrated on, and `calibrate` has neither."""


def calibrate(
    network: SpikingNetwork,
    images: Images,
    method: str | Method = DEFAULT_METHOD,
    steps: int | None = None,
    *,
    schedule: Schedule | None = None,
    device: str | torch.device = "auto",
    batch_size: int = 64,
    resume: str | Path | None = None,
    progress: Progress = silent,
) -> SpikingNetwork:
    """Sets a network's initial potentials by a static method.

    Started by `torchrun` in several processes, each takes its share of the images and all return the same network.

    Args:
        network: The network.
        images: Calibration images, as for `cos_export.simulate`; labels are left aside. Of frames the mean over the
            steps is taken, which the artificial network takes as well. A torch data set is read in batches. The network
            takes on the normalisation of a `Dataset` if it has none.
        method: A static method, or its name.
        steps: T to calibrate for: a calibrated potential is the best for that T only.
        schedule: "synchronous" or "layerwise", by default the network's own; the result has it.
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch_size: Samples computed at once, as for `cos_export.simulate`; it bounds the memory.
        resume: A file for the state of the calibration, written every 10 seconds and at the end. If it is there, the
            calibration goes on from it, to the result that it would have come to without the interruption. At the end
            it holds the result, which the same call returns at once: remove it when the network is kept elsewhere.
        progress: Told as the stage goes on.

    Returns:
        The network with v_init filled in, its method and T recorded; one of integers as integers again.

    Raises:
        InputError: The method is per sample or unknown, or does not do these numerics or this schedule, the images do
            not fit, or `resume` is not the state of this calibration.
        UnavailableError: The device is not there, or the processes do not find each other.
    """
    check_network(network)
    check_held_throughout(network)
    chosen = static_only(method_named(method) if isinstance(method, str) else method)
    if not chosen.supports(network.numerics):
        raise InputError(chosen.refusal(network.numerics))
    network = network if schedule is None else replace(network, schedule=check_schedule(schedule))
    if refused := chosen.schedule_refusal(network.schedule):
        raise InputError(refused)
    network = with_normalisation_of(network, images)
    steps, where = check_steps(steps, network), local_device(resolve_device(device))
    held = steps // summed_steps(network.schedule, steps)
    batch_size = samples_at_once(network, held, whole_number("batch_size", batch_size, 1, MOST_BATCH), where)
    data = calibration_data(network, images, batch_size)
    with process_group(where), torch.no_grad(), full_precision():
        if len(data) < batch_size * (process_count() - 1) + 1:
            raise InputError(
                f"There are {len(data)} calibration images in batches of {batch_size}, fewer than the "
                f"{process_count()} processes that share them. Give more images or a smaller batch size."
            )
        depends_on = None if resume is None else identity(network, data, chosen.record(), steps, where)
        checkpoint = Checkpoint(None if resume is None else Path(resume), depends_on)
        run = CalibrationRun(data, steps, where, progress if is_main() else silent, checkpoint)
        calibrated = checkpoint.result(network)
        if calibrated is None:
            with failing_together():
                calibrated = chosen.calibrate(network, run)
            checkpoint.finish(network, calibrated)
    return replace(
        round_to_half_integers(calibrated),
        input_encoding="frames" if data.frames else network.input_encoding,
        num_timesteps=steps,
        method=chosen.name,
        rho=0,
        calibration=chosen.record(),
        calibrated_timesteps=steps if chosen.depends_on_steps else None,
    )


def static_only(method: Method) -> StaticMethod:
    """The method, if it is a static one.

    Raises:
        InputError: It is per sample.
    """
    if not isinstance(method, StaticMethod):
        raise InputError(
            f"{method.name!r} calibrates each sample while it runs, so there is nothing to set beforehand: pass "
            f"calibration=cos_export.{type(method).__name__}(...) to simulate() or export()."
        )
    return method
