"""An error planted in what Lava runs is found, and named by layer, step, sample and neuron."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from planted_faults import (
    FAULTS,
    NETWORKS,
    check_found_and_located,
    check_masks_of_samples_ignored,
    check_passes,
    check_strict_comparison_in_float32,
    strict_comparison,
)

from targets.lava import LavaTarget
from targets.lava.job import Backend

pytestmark = pytest.mark.usefixtures("lava_environment")

BACKENDS: tuple[Backend, ...] = ("batched", "faithful", "netx")
NOT_IN_NETX = {
    "a bias per step",
    "the bias per step one step early",
    "silent neurons",
    "the silent mask ignored",
    "ties",
}
"""netx refuses such a bias, silent neurons and float32 by name, which test_lava_netx.py holds it to."""


def _runs(names: Iterable[str]) -> list[tuple[Backend, str]]:
    return [(back, name) for back in BACKENDS for name in names if back != "netx" or name not in NOT_IN_NETX]


@pytest.mark.parametrize(("backend", "name"), _runs(NETWORKS))
def test_without_a_fault_every_network_passes(backend: Backend, name: str, tmp_path: Path) -> None:
    check_passes(LavaTarget(backend), NETWORKS[name], NETWORKS[name], tmp_path)


@pytest.mark.parametrize(("backend", "fault"), _runs(FAULTS))
def test_a_planted_fault_is_found_and_located(backend: Backend, fault: str, tmp_path: Path) -> None:
    check_found_and_located(LavaTarget(backend), FAULTS[fault], tmp_path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_with_half_integers_both_comparisons_agree(backend: Backend, tmp_path: Path) -> None:
    network = NETWORKS["half-integers"]
    check_passes(LavaTarget(backend), network, strict_comparison(network), tmp_path)


@pytest.mark.parametrize("backend", ["batched", "faithful"])  # netx knows integers only
def test_a_strict_comparison_in_float32_shows_at_a_tie(backend: Backend, tmp_path: Path) -> None:
    check_strict_comparison_in_float32(LavaTarget(backend), tmp_path)


@pytest.mark.parametrize("backend", ["batched", "faithful"])  # netx knows no silent neurons
def test_masks_of_samples_that_are_ignored_are_found(backend: Backend, tmp_path: Path) -> None:
    check_masks_of_samples_ignored(LavaTarget(backend), tmp_path)
