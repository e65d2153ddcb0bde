from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_networks import two_layers

from calibration import COS
from cos_export.exporting import export
from cos_export.simulation import simulate
from targets import get, running


@pytest.mark.parametrize("target", ["pytorch", "onnxruntime"])
def test_chunks_of_a_per_sample_method_answer_as_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    images = np.random.default_rng(0).normal(size=(10, 2, 5, 5)).astype(np.float32)
    network, method = two_layers(seed=3), COS(rho=3)
    bundle = export(network, tmp_path / "bundle", 4, golden=images[:2], calibration=method)
    expected = simulate(network, images, 4, calibration=method)
    monkeypatch.setattr(running, "CHUNK", 4)
    told: list[int] = []
    trace = running.classify(
        get(target), bundle, images, calibration=method, progress=lambda stage, done, total: told.append(done)
    )
    np.testing.assert_allclose(trace.logits, expected.logits, rtol=1e-6, atol=1e-6)
    # ONNX Runtime's graph pre-simulates by itself, batch after batch.
    assert trace.rho == 3 and trace.states is None and told == ([0, 4, 8, 10] if target == "pytorch" else [0, 10])


def test_a_static_bundle_runs_as_it_is(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(10, 2, 5, 5)).astype(np.float32)
    bundle = export(two_layers(seed=3), tmp_path / "bundle", 4, golden=images[:2])
    trace = running.classify(get("onnxruntime"), bundle, images)
    np.testing.assert_allclose(trace.logits, simulate(two_layers(seed=3), images, 4).logits, rtol=1e-6, atol=1e-6)
    assert trace.rho == 0
