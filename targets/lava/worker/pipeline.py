"""Spreads the stages of the batched back end over the processor's cores.

Within a step of Lava a stage waits for those in front of it, so one core would do all the work. The stages are
cut into runs of about equal work, one for each core, and each run works one step behind the one before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from job import Node
from stages import Stage

__all__ = ["segments", "work"]

_NEURON_WORK = 150
"""Products in which a neuron's own step can be counted: what moves its spikes and potentials through memory."""


def _fan_in(node: Node) -> int:
    """Products for one element of a synapse's output."""
    weight = node.array("weight")
    if weight is not None:
        return math.prod(weight.shape[1:])
    return math.prod(node.settings.get("kernel", (1,)))


def work(stage: Stage, steps: int, *, each_step: bool = True) -> float:
    """What a stage does in a step, in products; what the constant input needs is spread over the steps.

    Args:
        stage: The stage.
        steps: T.
        each_step: Whether what spikes feed is computed in each of them, and not once.
    """
    products = sum(math.prod(node.shape) * _fan_in(node) for node in stage.synapses)
    return products / (1 if each_step and stage.sources else steps) + _NEURON_WORK * math.prod(stage.node.shape)


def segments(stages: Sequence[Stage], cores: int, steps: int, *, each_step: bool = True) -> dict[str, int]:
    """The run that each stage belongs to, by its node's name, counted from 0.

    Args:
        stages: In an order in which each comes after those that it takes spikes from.
        cores: Runs that there may be.
        steps: T.
        each_step: As of `work`.
    """
    works = [work(stage, steps, each_step=each_step) for stage in stages]
    total, before, found = sum(works), 0.0, {}
    for stage, own in zip(stages, works, strict=True):
        middle = (before + own / 2) / total if total else 0.0
        found[stage.node.name] = min(int(middle * cores), cores - 1)
        before += own
    # A stage of more than a run's share may leave a run empty, which would only cost a step.
    used = {run: place for place, run in enumerate(sorted(set(found.values())))}
    return {name: used[run] for name, run in found.items()}
