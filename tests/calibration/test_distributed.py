"""Two processes on one calibration, started by torchrun as a user would: what one process comes to.

All methods are run in one pair of processes, for each takes seconds to start.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_networks import two_layers
from two_layer_reference import dyadic_images

from calibration import FTBC, RMP, BiasCorrection, MeanMatching, Static, StaticMethod, calibrate
from calibration.data import CalibrationData
from cos_export.network import SpikingNetwork

IMAGES = np.random.default_rng(0).normal(size=(48, 2, 5, 5)).astype(np.float32)

WHOLE: dict[str, StaticMethod] = {
    "mean-matching": MeanMatching(rounds=4),
    "static": Static(
        tune=("potential", "bias", "weight"), updates=20, samples=15, rounds=3, precision="float32", shift=1
    ),
}
"""Methods that see the whole network at once."""

LAYERS: dict[str, StaticMethod] = {"rmp": RMP(horizon=6), "bias": BiasCorrection(), "ftbc": FTBC(batches=4, samples=9)}
"""Methods that go layer by layer or step by step."""

TOLERANCE = {**dict.fromkeys(WHOLE, 1e-4), **dict.fromkeys(LAYERS, 1e-6)}
"""Sums are in another order: in float64 for means, in float32 for gradients."""


def calibrated(name: str) -> SpikingNetwork:
    if name in WHOLE:
        return calibrate(two_layers(seed=8), IMAGES, WHOLE[name], 2, device="cpu", batch_size=8)
    # 30 images: with 7 to a batch the processes have 16 and 14, and FTBC's batches of 9 are split into 5 and 4.
    return calibrate(two_layers(seed=6), dyadic_images(30), LAYERS[name], 3, device="cpu", batch_size=7)


def arrays(network: SpikingNetwork) -> dict[str, np.ndarray]:
    """All that the methods set."""
    actual: dict[str, np.ndarray] = {}
    for name, spec in network.neurons.items():
        actual |= {f"{name}/v_init": spec.v_init, f"{name}/threshold": spec.threshold}
        actual[f"{name}/bias"] = np.zeros(0) if spec.bias is None else spec.bias
    for name in ("conv", "dense", "head"):
        node = network.graph.nodes[name]
        actual |= {f"{name}/weight": node.weight, f"{name}/offset": node.bias}
    return actual


def _dying(take: Callable[..., Any]) -> Callable[..., Any]:
    """`CalibrationData.take`, whose third call ends the process."""
    calls: list[None] = []

    def dying(self: CalibrationData, *chosen: Any) -> Any:
        calls.append(None)
        if len(calls) > 2:
            os._exit(9)
        return take(self, *chosen)

    return dying


def _calibrate_all(how: str, folder: str) -> None:
    """What each of the processes does."""
    rank = os.environ["RANK"]
    if how == "die" and rank == "1":
        CalibrationData.take = _dying(CalibrationData.take)  # type: ignore[method-assign]
    for name in WHOLE if how == "die" else TOLERANCE:
        actual = arrays(calibrated(name))
        threads = [(thread / "comm").read_text() for thread in Path("/proc/self/task").iterdir()]
        actual["gloo"] = np.array([name for name in threads if "gloo" in name])
        np.savez(f"{folder}/rank{rank}-{name}.npz", **actual)  # type: ignore[arg-type]


def launch(tmp_path: Path, how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    paths = os.pathsep.join(str(Path(__file__).parents[i] / folder) for i, folder in ((1, "helpers"), (2, ".")))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    return subprocess.run([*command, how, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have left what each of them came to with each method."""
    folder = tmp_path_factory.mktemp("both")
    result = launch(folder, "live")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.parametrize("method", TOLERANCE)
def test_two_processes_come_to_what_one_does(both: Path, method: str) -> None:
    alone = arrays(calibrated(method))
    with np.load(both / f"rank0-{method}.npz") as first, np.load(both / f"rank1-{method}.npz") as second:
        assert not len(first["gloo"]) and not len(second["gloo"]), "the group has been left, and its threads have ended"
        assert set(first) == set(second) == {*alone, "gloo"}
        for key, expected in alone.items():
            assert np.array_equal(first[key], second[key]), "all processes have the same network"
            np.testing.assert_allclose(first[key], expected, rtol=TOLERANCE[method], atol=TOLERANCE[method])


def test_a_process_that_dies_ends_the_run_with_an_error(tmp_path: Path) -> None:
    start = time.monotonic()
    result = launch(tmp_path, "die")
    assert result.returncode != 0
    assert "exitcode" in result.stderr and not list(tmp_path.glob("rank*.npz"))
    assert time.monotonic() - start < 120


if __name__ == "__main__":
    _calibrate_all(*sys.argv[1:])
