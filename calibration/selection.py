"""Which of the calibrated networks is exported: what is measured on images held out decides.

The measure is the mean over images that no calibration saw of

    KL( softmax(logits of the artificial network) || softmax(mean readout of T steps) )

It needs no labels, and every image tells something, where the share of decisions that agree changes by single images
of a few hundred: of two methods that differ by a point it would often choose the wrong one. The share stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from calibration.methods.half import Half
from calibration.methods.method import Method, PerSampleMethod
from calibration.methods.unchanged import Unchanged
from cos_export.datasets import Dataset
from cos_export.divergence import agreement, divergence
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.progress import Progress, silent
from cos_export.shared_logits import shared_readout

__all__ = ["MOST_HELD_OUT", "Candidate", "Score", "Selection", "held_out_beside", "hold_out", "select"]

MOST_HELD_OUT = 256
"""Images held out at most."""


@dataclass(frozen=True)
class Candidate:
    """A method and what it made of the network.

    Attributes:
        method: The method.
        network: Calibrated, if it is a static method; of the numerics that are to be exported.
        float32: What the same method made of the network of float32, if `network` is one of integers.
    """

    method: Method
    network: SpikingNetwork
    float32: SpikingNetwork | None = None

    @property
    def per_sample(self) -> PerSampleMethod | None:
        """The method, if it calibrates each sample while it runs."""
        return self.method if isinstance(self.method, PerSampleMethod) else None


@dataclass(frozen=True)
class Score:
    """How close a network comes to the artificial one on the images held out.

    Attributes:
        method: By name.
        divergence: The mean KL divergence in nats.
        agreement: The share of images that are decided alike.
    """

    method: str
    divergence: float
    agreement: float


@dataclass(frozen=True)
class Selection:
    """What was measured, and what came of it.

    Attributes:
        chosen: The method that is exported.
        named: Whether the user named it, so that it is exported whatever was measured.
        samples: Images held out; 0 if there were none, and nothing is measured.
        scores: Of v_init = theta / 2 and of every method that was tried.
        skipped: Why a method could not be tried, by name.
    """

    chosen: str
    named: bool
    samples: int
    scores: tuple[Score, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def warning(self) -> str | None:
        """What to tell a user whose method is worse than none."""
        scores = {score.method: score for score in self.scores}
        if not self.named or self.chosen not in scores or "half" not in scores:
            return None
        own, half = scores[self.chosen], scores["half"]
        if own.divergence <= half.divergence:
            return None
        return (
            f"{self.chosen} is worse than half, which calibrates nothing: on {self.samples} images held out it is at "
            f"{own.divergence:.3g} from the artificial network and decides {100 * own.agreement:.1f} % alike, half is "
            f"at {half.divergence:.3g} with {100 * half.agreement:.1f} %. It is exported since it was named. Take "
            "--method half, more calibration images, more steps, or --method auto, which takes what is closest."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        measure = "mean KL divergence of the artificial network's softmax to that of T steps, on images held out"
        return {
            "measure": measure,
            **asdict(self),
            "scores": [asdict(score) for score in self.scores],
            "warning": self.warning,
        }


def held_out_beside(samples: int) -> int:
    """Images that are held out beside `samples` to calibrate on, unless more are asked for."""
    return min(MOST_HELD_OUT, max(1, samples // 4))


def hold_out(pool: Dataset, samples: int, most: int | None = None) -> tuple[Dataset, Dataset | None]:
    """Images to calibrate on, `samples` of them if there are as many, and others to compare methods on.

    Held out are up to a quarter as many as there are to calibrate on, of those that are left, and a fifth of all where
    too few are left.

    Args:
        pool: All that may serve, none of which is to be tested on.
        samples: Images to calibrate on.
        most: Images to hold out, where so many are left.
    """
    count, others = held_out_beside(samples), len(pool) - samples
    if others > 0 and 2 * others >= count:
        calibration, held_out = pool.split_at(samples)
        return calibration, held_out.first(min(most or count, others))
    if len(pool) < 2:
        return pool, None
    return pool.split_at(len(pool) - min(MOST_HELD_OUT, max(1, len(pool) // 5)))


def select(
    start: SpikingNetwork,
    candidates: Sequence[Candidate],
    held_out: Dataset | None,
    ann_logits: FloatArray | None,
    steps: int,
    *,
    named: bool,
    skipped: Mapping[str, str],
    device: str = "auto",
    progress: Progress = silent,
) -> tuple[Candidate, Selection]:
    """The candidate to export: the one that was named, or else the closest on the images held out.

    Args:
        start: The network before its calibration: v_init = theta / 2, or what a file says.
        candidates: At least one; the first of those that are equally close is taken, and the first if nothing is
            measured.
        held_out: Images that no candidate was calibrated on.
        ann_logits: Logits of the artificial network for them.
        steps: T.
        named: Whether the user named the only candidate.
        skipped: Why others could not be tried.
        device: Where to run.
        progress: Told as it goes on.
    """
    if held_out is None or ann_logits is None:
        return candidates[0], Selection(candidates[0].method.name, named, 0, (), skipped)

    def score(name: str, network: SpikingNetwork, per_sample: PerSampleMethod | None) -> Score:
        logits = shared_readout(
            network, held_out.images, steps, calibration=per_sample, device=device, progress=progress
        )
        return Score(name, divergence(ann_logits, logits), agreement(ann_logits, logits))

    before = Half.name if start.method == Half.name else Unchanged.name
    scores = {before: score(before, start, None)}
    for candidate in candidates:
        if candidate.method.name not in scores:
            scores[candidate.method.name] = score(candidate.method.name, candidate.network, candidate.per_sample)
    chosen = min(candidates, key=lambda candidate: scores[candidate.method.name].divergence)
    return chosen, Selection(chosen.method.name, named, len(held_out), tuple(scores.values()), skipped)
