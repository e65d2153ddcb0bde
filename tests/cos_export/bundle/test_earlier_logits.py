"""Bundles of integers whose logits an earlier version has divided by t and then scaled, which rounds twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import change_manifest, relist
from eight_bit_networks import in_integers, pictures, topology

from cos_export.bundle import load
from cos_export.bundle.golden import write_golden
from cos_export.exporting import export
from targets.pytorch import PyTorchTarget
from targets.verification import verify


@pytest.mark.parametrize("number", [2, 3])
def test_they_verify_and_those_of_today_must_be_equal_to_the_bit(tmp_path: Path, number: int) -> None:
    network = in_integers(topology("convolutions"), 4)
    bundle = export(network, tmp_path / "b", 7, golden=pictures(network, 6))
    assert verify(bundle, targets=[PyTorchTarget()]).passed
    golden, coding = bundle.golden, network.quantisation
    assert coding is not None
    counts = np.arange(1, 8, dtype=np.float32).reshape(-1, 1, 1)
    sums = np.rint(golden.trace.logits.astype(np.float64) * counts / coding.readout_scale).astype(np.float32)
    twice = sums / counts * np.float32(coding.readout_scale)
    assert (twice != golden.trace.logits).any()
    write_golden(bundle.golden_path, replace(golden, trace=replace(golden.trace, logits=twice)))
    change_manifest(bundle.path, lambda manifest: manifest.update(format=f"cos-export-bundle/{number}"))
    relist(bundle.path)
    result = verify(load(bundle.path), targets=[PyTorchTarget()])
    assert result.passed == (number == 2)
    assert result["pytorch"].mismatches == result["pytorch"].local_violations == 0
    off = replace(golden.trace, logits=twice + np.float32(coding.readout_scale))
    write_golden(bundle.golden_path, replace(golden, trace=off))
    relist(bundle.path)
    assert not verify(load(bundle.path), targets=[PyTorchTarget()]).passed
