"""Large matrices in float64, a block of rows at a time."""

from __future__ import annotations

from dataclasses import replace

import nir
import numpy as np
import pytest
import torch
from integer_networks import in_fixed_point
from random_networks import affine, images, sequential

from cos_export.network import SpikingNetwork
from cos_export.network.schedule import Schedule
from cos_export.parity import check_local, evaluation
from cos_export.parity.margin import evaluation_of
from cos_export.parity.rounding import Bounded
from cos_export.parity.row_blocks import row_blocks
from cos_export.simulation import simulate


@pytest.mark.parametrize("bias", [None, "one", "each"])
@pytest.mark.parametrize("most", [1, 7, 20, 21, 10**6])
def test_blocks_side_by_side_are_the_matrix(bias: str | None, most: int) -> None:
    random = np.random.default_rng(0)
    weight, values = random.normal(size=(6, 7)), random.normal(size=(3, 7))
    offset = np.asarray({None: 0.0, "one": 0.5, "each": random.normal(size=6)}[bias])
    node = nir.Linear(weight) if bias is None else nir.Affine(weight, offset)
    blocks = row_blocks(node, most)
    assert len(blocks) == {1: 6, 7: 6, 20: 3, 21: 2, 10**6: 1}[most]
    assert all(np.shares_memory(block.weight, weight) for block in blocks)
    found = np.concatenate([values @ block.weight.T + getattr(block, "bias", 0.0) for block in blocks], 1)
    np.testing.assert_allclose(found, values @ weight.T + offset, rtol=1e-13)


def test_what_is_no_matrix_stays_whole() -> None:
    node = nir.Conv2d((5, 5), np.ones((3, 4, 3, 3)), 1, 1, 1, 1, np.zeros(3))
    assert row_blocks(node, 1) == [node]


def perceptron(seed: int) -> SpikingNetwork:
    rng = np.random.default_rng(seed)
    return sequential(rng, (12,), [affine(rng, 12, 9), "IF", affine(rng, 9, 8), "IF"], classes=5)


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
@pytest.mark.parametrize("integers", [False, True])
def test_a_run_is_judged_by_blocks_as_by_the_whole(
    schedule: Schedule, integers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = replace(in_fixed_point(perceptron(3), 3) if integers else perceptron(3), schedule=schedule)
    inputs = images(network, 6, seed=4)
    trace = simulate(network, inputs, 3)
    fired = {name: torch.from_numpy(spikes) for name, spikes in trace.spikes.items()}

    def arriving() -> list[tuple[str, list[Bounded]]]:
        return list(evaluation_of(network, 3).walk(torch.from_numpy(inputs), fired))

    whole, judged = arriving(), check_local(network, inputs, trace)
    monkeypatch.setattr(evaluation, "_KEPT", 20)
    blocks = arriving()
    assert [name for name, _ in blocks] == [name for name, _ in whole]
    for (_, expected), (_, actual) in zip(whole, blocks, strict=True):
        for one, other in zip(expected, actual, strict=True):
            torch.testing.assert_close(other.value, one.value, rtol=1e-13, atol=1e-13)
            assert (one.error is None) == (other.error is None) == integers
            if one.error is not None and other.error is not None:
                torch.testing.assert_close(other.error, one.error, rtol=1e-5, atol=0)
    again = check_local(network, inputs, trace)
    assert again.violations == judged.violations == 0
