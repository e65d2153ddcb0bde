"""An error planted in what PyTorch or ONNX Runtime runs is found, and named by layer, step, sample and neuron."""

from __future__ import annotations

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

from cos_export.bundle.target import Target
from targets.onnxruntime import OnnxRuntimeTarget
from targets.pytorch import PyTorchTarget

pytestmark = pytest.mark.parametrize(
    "target", [PyTorchTarget("cpu"), OnnxRuntimeTarget(threads=1)], ids=lambda one: one.name
)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_fault_every_network_passes(target: Target, name: str, tmp_path: Path) -> None:
    check_passes(target, NETWORKS[name], NETWORKS[name], tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_located(target: Target, fault: str, tmp_path: Path) -> None:
    check_found_and_located(target, FAULTS[fault], tmp_path)


def test_with_half_integers_both_comparisons_agree(target: Target, tmp_path: Path) -> None:
    network = NETWORKS["half-integers"]
    check_passes(target, network, strict_comparison(network), tmp_path)


def test_a_strict_comparison_in_float32_shows_at_a_tie(target: Target, tmp_path: Path) -> None:
    check_strict_comparison_in_float32(target, tmp_path)


def test_masks_of_samples_that_are_ignored_are_found(target: Target, tmp_path: Path) -> None:
    check_masks_of_samples_ignored(target, tmp_path)
