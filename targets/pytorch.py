"""The reference: a bundle's network run by `simulate`."""

from __future__ import annotations

import torch

from cos_export.bundle import Bundle
from cos_export.bundle.target import Availability
from cos_export.device import resolve_device
from cos_export.errors import CosExportError, TargetError
from cos_export.network import FloatArray, SampleStates
from cos_export.progress import Progress, silent
from cos_export.simulation import simulate
from cos_export.simulation.trace import Trace
from targets.deadline import check_deadline, within_deadline

__all__ = ["PyTorchTarget"]


class PyTorchTarget:
    """PyTorch on the CPU or a CUDA device.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch_size: Samples computed at once.
        deadline: Seconds that a run may take; by default as many as it needs.

    Raises:
        InputError: The deadline is not a positive number.
    """

    def __init__(self, device: str = "auto", batch_size: int = 64, deadline: float | None = None) -> None:
        check_deadline(deadline)
        self.device = device
        self.batch_size = batch_size
        self.deadline = deadline

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return "pytorch"

    def available(self) -> Availability:
        """Whether the device is there."""
        try:
            device = resolve_device(self.device)
        except CosExportError as error:
            return Availability(ready=False, version=f"torch {torch.__version__}", reason=str(error))
        return Availability(ready=True, version=f"torch {torch.__version__} ({device})")

    def run(
        self,
        bundle: Bundle,
        images: FloatArray,
        steps: int,
        *,
        states: SampleStates | None = None,
        record_spikes: bool = True,
        progress: Progress = silent,
    ) -> Trace:
        """Runs a batch; arguments and result as `Target.run` says.

        Raises:
            InputError: The images, steps or states do not fit the network.
            UnavailableError: The device is not there.
            TargetError: PyTorch failed, as when memory runs out, or was not done by the deadline.
        """
        try:
            return simulate(
                bundle.network,
                images,
                steps,
                states=states,
                device=self.device,
                batch_size=self.batch_size,
                record_spikes=record_spikes,
                progress=within_deadline(progress, "PyTorch", self.deadline),
            )
        except (RuntimeError, MemoryError) as error:
            raise TargetError(f"PyTorch failed on {self.device}: {error}") from error
