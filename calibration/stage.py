"""The calibration stage: the methods by name, and `calibrate`, which streams the data through one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset

from calibration.checkpoint import Checkpoint
from calibration.data import CalibrationData, calibration_data
from calibration.distributed import is_main, local_device, process_count, process_group
from calibration.identity import identity
from calibration.methods.bias import BiasCorrection
from calibration.methods.cos import COS
from calibration.methods.ftbc import FTBC
from calibration.methods.half import Half
from calibration.methods.mean_matching import MeanMatching
from calibration.methods.opi import OPI
from calibration.methods.rmp import RMP
from calibration.methods.srp import SRP
from calibration.methods.static import Static
from cos_export.device import full_precision, resolve_device
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork
from cos_export.progress import Progress, silent
from cos_export.simulation import PerSampleCalibration, check_steps
from cos_export.simulation.fixed_point import round_to_half_integers

__all__ = [
    "PER_SAMPLE",
    "STATIC",
    "StaticMethod",
    "calibrate",
    "method_names",
    "needs_data",
    "per_sample_method",
    "static_method",
]


class StaticMethod(Protocol):
    """A method that sets one initial potential per neuron, the same for all inputs: rho = 0."""

    @property
    def name(self) -> str:
        """What the command line calls it."""

    @property
    def needs_data(self) -> bool:
        """Whether it looks at the calibration images at all."""

    def calibrate(
        self,
        network: SpikingNetwork,
        data: CalibrationData,
        steps: int,
        device: torch.device,
        progress: Progress,
        checkpoint: Checkpoint,
    ) -> SpikingNetwork:
        """The network with its initial potentials set.

        Args:
            network: The network, with v_init = theta / 2 where nothing else was set.
            data: The calibration images.
            steps: T to calibrate for.
            device: Where to compute.
            progress: Told as it goes on.
            checkpoint: Where to go on from, and where to keep the state of long work between its rounds.
        """


STATIC: dict[str, Callable[[], StaticMethod]] = {
    "half": Half,
    "opi": OPI,
    "rmp": RMP,
    "mean-matching": MeanMatching,
    "bias": BiasCorrection,
    "ftbc": FTBC,
    "static": Static,
}
"""Static methods by name."""

PER_SAMPLE: dict[str, Callable[[int], PerSampleCalibration]] = {"cos": COS, "srp": SRP}
"""Per-sample methods by name, each made from its number of extra steps."""


def method_names() -> tuple[str, ...]:
    """Every method, static ones first."""
    return (*STATIC, *PER_SAMPLE)


def needs_data(name: str) -> bool:
    """Whether the method called `name` needs images to calibrate on before it runs.

    Raises:
        InputError: There is no such method.
    """
    return per_sample_method(name, 1) is None and STATIC[name]().needs_data


def per_sample_method(name: str, rho: int) -> PerSampleCalibration | None:
    """The per-sample method called `name` with `rho` extra steps, or None if `name` is a static method.

    Raises:
        InputError: There is no such method.
    """
    if name in PER_SAMPLE:
        return PER_SAMPLE[name](rho)
    if name in STATIC:
        return None
    raise InputError(f"There is no calibration method {name!r}. There are {', '.join(method_names())}.")


def calibrate(
    network: SpikingNetwork,
    images: ArrayLike | Tensor | Dataset[object],
    method: str | StaticMethod = "mean-matching",
    steps: int | None = None,
    *,
    device: str | torch.device = "auto",
    batch_size: int = 64,
    resume: str | Path | None = None,
    progress: Progress = silent,
) -> SpikingNetwork:
    """Sets a network's initial potentials by a static method.

    Started by `torchrun` in several processes, each takes its share of the images and all return the same network.

    Args:
        network: The network.
        images: Calibration images (samples, ...), without labels, or a torch data set of them. They are read in
            batches.
        method: A static method, or its name.
        steps: T to calibrate for: a calibrated potential is the best for that T only.
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch_size: Samples computed at once; it bounds the memory.
        resume: A file for the state of the calibration, written every 10 seconds. If it is there, the calibration
            goes on from it, to the result that it would have come to without the interruption; it is removed in
            the end.
        progress: Told as the stage goes on.

    Returns:
        The network with v_init filled in, its method and T recorded; one of integers as integers again.

    Raises:
        InputError: The method is per sample or unknown, the images do not fit, or `resume` is not the state of this
            calibration.
        UnavailableError: The device is not there, or the processes do not find each other.
    """
    chosen = static_method(method) if isinstance(method, str) else method
    data, steps = calibration_data(network, images, batch_size), check_steps(steps, network)
    where = local_device(resolve_device(device))
    with process_group(where), torch.no_grad(), full_precision():
        if len(data) < batch_size * (process_count() - 1) + 1:
            raise InputError(
                f"There are {len(data)} calibration images in batches of {batch_size}, fewer than the "
                f"{process_count()} processes that share them. Give more images or a smaller batch size."
            )
        depends_on = None if resume is None else identity(network, data, vars(chosen), steps, where)
        checkpoint = Checkpoint(None if resume is None else Path(resume), depends_on)
        calibrated = chosen.calibrate(network, data, steps, where, progress if is_main() else silent, checkpoint)
        checkpoint.remove()
    return replace(round_to_half_integers(calibrated), num_timesteps=steps, method=chosen.name, rho=0)


def static_method(name: str, options: Mapping[str, object] | None = None) -> StaticMethod:
    """The static method called `name`, with some of its attributes chosen.

    Args:
        name: As the command line calls it.
        options: Attributes by name, such as `{"seed": 1}` for `static`.

    Raises:
        InputError: The method is per sample or unknown, or it has no such attribute.
    """
    if per_sample_method(name, 1) is not None:
        raise InputError(
            f"{name!r} calibrates each sample while it runs, so there is nothing to set beforehand: pass "
            f"calibration=cos_export.{name.upper()}(...) to simulate() or export()."
        )
    method, chosen = STATIC[name](), dict(options or {})
    unknown = [option for option in chosen if option in ("name", "needs_data") or not hasattr(method, option)]
    if unknown:
        raise InputError(f"The method {name!r} has no {', '.join(unknown)} to choose.")
    return type(method)(**chosen)
