"""How the batched back end's stages are spread over cores."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from random_networks import IF, affine, images, residual, sequential

from cos_export.network import SpikingNetwork
from targets.lava.lowering import lower


def _stages(modules: SimpleNamespace, network: SpikingNetwork) -> Any:
    nodes = []
    for index, (name, lowered) in enumerate(lower(network, images(network, 1), 1).items()):
        node = modules.job.Node(
            index, name, lowered.kind, network.predecessors[name], network.shapes[name], lowered.settings, {}
        )
        object.__setattr__(node, "array", lowered.arrays.get)
        nodes.append(node)
    return modules.stages.cut(nodes)


def test_what_a_stage_does_is_counted_in_products(worker_modules: SimpleNamespace) -> None:
    """The first convolution is computed once for all steps; the second layer of neurons adds three ways."""
    first, second, readout = _stages(worker_modules, residual(np.random.default_rng(0)))
    work = worker_modules.pipeline.work
    neurons = 4 * 6 * 5
    assert work(first, 4) == neurons * 2 * 9 / 4 + 150 * neurons
    assert work(second, 4) == neurons * (4 * 9 + 4 + 2) + 150 * neurons
    assert work(readout, 4) == 3 * 120 + 120 + 150 * 3


@pytest.mark.parametrize("cores", [1, 2, 3, 5, 50])
def test_runs_are_of_about_equal_work_and_none_is_empty(worker_modules: SimpleNamespace, cores: int) -> None:
    rng = np.random.default_rng(0)
    layers = [affine(rng, 20, 20), IF] * 12
    stages = _stages(worker_modules, sequential(rng, (20,), layers))
    actual = worker_modules.pipeline.segments(stages, cores, 4)
    runs = list(actual.values())
    assert list(actual) == [stage.node.name for stage in stages]
    assert runs == sorted(runs)
    assert sorted(set(runs)) == list(range(max(runs) + 1))
    assert max(runs) + 1 <= min(cores, len(stages))
    works = [worker_modules.pipeline.work(stage, 4) for stage in stages]
    shares = [sum(work for work, run in zip(works, runs, strict=True) if run == place) for place in set(runs)]
    assert max(shares) <= sum(works) / cores + max(works)


def test_a_stage_that_does_nearly_all_leaves_no_run_empty(worker_modules: SimpleNamespace) -> None:
    rng = np.random.default_rng(0)
    layers = [affine(rng, 2, 2), IF, affine(rng, 2, 900), IF, affine(rng, 900, 900), IF]
    runs = worker_modules.pipeline.segments(_stages(worker_modules, sequential(rng, (2,), layers)), 4, 4)
    assert set(runs.values()) == set(range(max(runs.values()) + 1))
