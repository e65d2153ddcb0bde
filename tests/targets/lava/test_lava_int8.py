"""A trained network, quantised: not one spike and not one logit differs between Lava, ONNX Runtime and PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_networks import images, residual

from calibration import COS, calibrate
from cos_export.exporting import export
from cos_export.parity import verify
from cos_export.quantisation import quantise
from targets.lava import LavaTarget
from targets.onnxruntime import OnnxRuntimeTarget


@pytest.mark.usefixtures("lava_environment")
@pytest.mark.parametrize("calibration", [None, COS(rho=2)], ids=["static", "per-sample"])
def test_every_target_fires_the_same_spikes(calibration: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    network = residual(rng)
    batch = images(network, 6, seed=3) + rng.normal(size=(6, *network.input_shape)).astype(np.float32)
    network = calibrate(quantise(network, batch, steps=3), batch, "mean-matching", 3)
    bundle = export(network, tmp_path / "bundle", 3, golden=batch, calibration=calibration)
    assert 0.02 < np.mean([spikes.mean() for spikes in bundle.golden.trace.spikes.values()]) < 0.98
    result = verify(bundle, [OnnxRuntimeTarget(), LavaTarget()])
    assert result.passed and all(target.exact for target in result.targets.values())
    for target in result.targets.values():
        assert (target.mismatches, target.local_violations, target.comparison.logit_difference) == (0, 0, 0.0)
