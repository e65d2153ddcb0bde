"""Two processes on the methods that go layer by layer or step by step, started by torchrun as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from small_networks import two_layers
from two_layer_reference import dyadic_images

from calibration import FTBC, RMP, BiasCorrection, StaticMethod, calibrate
from cos_export.network import SpikingNetwork

# 30 images: with 7 to a batch the processes have 16 and 14, and FTBC's batches of 9 are split into 5 and 4.
SETTINGS = {"batch_size": 7, "device": "cpu"}


def methods() -> dict[str, StaticMethod]:
    return {"rmp": RMP(horizon=6), "bias": BiasCorrection(), "ftbc": FTBC(batches=4, samples=9)}


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


def calibrated() -> dict[str, np.ndarray]:
    actual: dict[str, np.ndarray] = {}
    for name, method in methods().items():
        network = calibrate(two_layers(seed=6), dyadic_images(30), method, 3, **SETTINGS)  # type: ignore[arg-type]
        actual |= {f"{name}/{key}": array for key, array in arrays(network).items()}
    return actual


def test_two_processes_come_to_what_one_does(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    paths = os.pathsep.join(str(Path(__file__).parents[i] / folder) for i, folder in ((1, "helpers"), (2, ".")))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    result = subprocess.run([*command, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    alone = calibrated()
    with np.load(tmp_path / "rank0.npz") as first, np.load(tmp_path / "rank1.npz") as second:
        assert set(first) == set(alone)
        for key, expected in alone.items():
            assert np.array_equal(first[key], second[key]), "all processes have the same network"
            np.testing.assert_allclose(first[key], expected, rtol=1e-6, atol=1e-6)


if __name__ == "__main__":
    np.savez(f"{sys.argv[1]}/rank{os.environ['RANK']}.npz", **calibrated())  # type: ignore[arg-type]
