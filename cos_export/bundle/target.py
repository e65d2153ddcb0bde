"""What a target is: the contract that every module of `targets/` fulfils."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from cos_export.bundle import Bundle
from cos_export.network import FloatArray, SampleStates
from cos_export.progress import Progress, silent
from cos_export.simulation.trace import Trace

__all__ = ["Availability", "PreSimulating", "Target"]


@dataclass(frozen=True)
class Availability:
    """Whether a target can run on this machine.

    Attributes:
        ready: Whether it can.
        version: Of what runs it, as "onnxruntime 1.31.1".
        reason: Why not, and what to do about it; empty if it is ready.
    """

    ready: bool
    version: str = ""
    reason: str = ""


class Target(Protocol):
    """Something that runs a bundle: it never falls back to another target."""

    @property
    def name(self) -> str:
        """What the command line calls it."""

    def available(self) -> Availability:
        """Whether it can run here, and why not."""

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
        """Runs a batch.

        Args:
            bundle: What to run.
            images: (samples, ...) analog inputs, each held for all steps.
            steps: T.
            states: What a per-sample method has set for these samples, or None.
            record_spikes: Whether to return every spike.
            progress: Told as the run goes on.

        Returns:
            The logits at every step and the spikes by layer.

        Raises:
            UnavailableError: It cannot run here.
            TargetError: It failed while it ran.
        """


@runtime_checkable
class PreSimulating(Protocol):
    """A target that may set the states of a per-sample method by itself: `run` without states does so."""

    def presimulates(self, bundle: Bundle) -> bool:
        """Whether it does, of this bundle."""
