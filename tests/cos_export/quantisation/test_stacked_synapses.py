"""Networks whose integers multiply, for synapses follow each other with no activation between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stacked_synapses import NETWORKS, warmed

from calibration.thresholds import relu_thresholds
from cos_export.capturing import capture
from cos_export.exporting import export_and_verify
from cos_export.quantisation import check_ranges, quantise
from cos_export.quantisation.ranges import LARGEST_SUM
from cos_export.simulation import simulate
from targets import get

STEPS = 8


@pytest.mark.parametrize("name", NETWORKS)
def test_published_kinds_quantise_and_fire_alike(name: str, tmp_path: Path) -> None:
    model = warmed(name)
    images = np.random.default_rng(0).random((16, 3, 8, 8), np.float32) * 2 - 0.5
    network = capture(model, images[:1], thresholds=relu_thresholds(model, images, steps=STEPS, device="cpu"))
    integers = quantise(network, images, steps=STEPS, samples=4, device="cpu")
    assert all(entry.largest_sum < LARGEST_SUM for entry in check_ranges(integers, STEPS))
    run_on = [get("pytorch"), get("onnxruntime")]
    bundle, parity = export_and_verify(integers, tmp_path / "b", STEPS, golden=images[:4], targets=run_on, device="cpu")
    assert bundle.manifest["numerics"] == "int8" and parity is not None and parity.passed
    assert {key: target.mismatches for key, target in parity.items()} == {"pytorch": 0, "onnxruntime": 0}
    fired = np.concatenate([spikes.ravel() for spikes in bundle.golden.trace.spikes.values()])
    assert 0.02 < fired.mean() < 0.9
    # The integers stand for the same network: their logits go with those of float32.
    real = simulate(network, images[:4], STEPS, device="cpu").logits[-1]
    assert np.corrcoef(bundle.golden.trace.logits[-1].ravel(), real.ravel())[0, 1] > 0.9
