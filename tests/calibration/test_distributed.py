"""Two processes on one calibration, started by torchrun as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_networks import two_layers

from calibration import MeanMatching, Static, calibrate

IMAGES = np.random.default_rng(0).normal(size=(48, 2, 5, 5)).astype(np.float32)

SCRIPT = """
import os, sys
import numpy as np
sys.path[:0] = {paths!r}
from small_networks import two_layers
from calibration import MeanMatching, Static, calibrate

images = np.random.default_rng(0).normal(size=(48, 2, 5, 5)).astype(np.float32)
everything = ("potential", "bias", "weight")
methods = {{"mean-matching": MeanMatching(rounds=4),
           "static": Static(tune=everything, updates=20, samples=15, rounds=3, precision="float32", shift=1)}}

if sys.argv[1] == "die" and os.environ["RANK"] == "1":
    take = __import__("calibration.data").data.CalibrationData.take
    def dying(self, chosen, count=[0]):
        count[0] += 1
        if count[0] > 9:
            os._exit(9)
        return take(self, chosen)
    __import__("calibration.data").data.CalibrationData.take = dying

for name, method in methods.items():
    network = calibrate(two_layers(seed=8), images, method, 2, device="cpu", batch_size=8)
    arrays = {{name: spec.v_init for name, spec in network.neurons.items()}}
    arrays["head"] = network.graph.nodes["head"].weight
    threads = [open(f"/proc/self/task/{{thread}}/comm").read() for thread in os.listdir("/proc/self/task")]
    arrays["gloo"] = [name for name in threads if "gloo" in name]
    np.savez(f"{folder}/rank" + os.environ["RANK"] + "-" + name + ".npz", **arrays)
"""


def launch(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "job.py"
    script.write_text(SCRIPT.format(paths=[str(Path(__file__).parents[1] / "helpers")], folder=tmp_path))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have left what each of them came to with each method."""
    folder = tmp_path_factory.mktemp("both")
    result = launch(folder, "live")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.parametrize("method", ["mean-matching", "static"])
def test_two_processes_come_to_what_one_does(both: Path, method: str) -> None:
    chosen = {
        "static": Static(
            tune=("potential", "bias", "weight"), updates=20, samples=15, rounds=3, precision="float32", shift=1
        ),
        "mean-matching": MeanMatching(rounds=4),
    }[method]
    alone = calibrate(two_layers(seed=8), IMAGES, chosen, 2, device="cpu", batch_size=8)
    with np.load(both / f"rank0-{method}.npz") as first, np.load(both / f"rank1-{method}.npz") as second:
        assert not len(first["gloo"]) and not len(second["gloo"]), "the group has been left, and its threads have ended"
        for name in alone.layers:
            assert np.array_equal(first[name], second[name]), "all processes have the same network"
            # Sums in another order: float64 for means, float32 for gradients.
            np.testing.assert_allclose(first[name], alone.neurons[name].v_init, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(first["head"], alone.graph.nodes["head"].weight, rtol=1e-4, atol=1e-4)


def test_a_process_that_dies_ends_the_run_with_an_error(tmp_path: Path) -> None:
    start = time.monotonic()
    result = launch(tmp_path, "die")
    assert result.returncode != 0
    assert "exitcode" in result.stderr and not list(tmp_path.glob("rank*.npz"))
    assert time.monotonic() - start < 120
