"""`verify --data`: other images than the golden ones, as the bundle takes them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from small_networks import two_layers

from cos_export.datasets import Normalisation
from cos_export.exporting import export

MEAN, STD = (0.3, 0.45), (0.1, 0.25)
PIXELS = np.random.default_rng(1).integers(0, 256, (7, 2, 5, 5), np.uint8)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    network = replace(two_layers(seed=1), normalisation=Normalisation(MEAN, STD))
    np.savez(tmp_path / "set.npz", images=PIXELS, labels=np.arange(7) % 4)
    golden = np.random.default_rng(0).random((3, 2, 5, 5), np.float32)
    return export(network, tmp_path / "b", 2, golden=golden).path


def counted(bundle: Path, *more: str) -> tuple[int, dict[str, list[int]]]:
    """The samples of a verification, and the spikes of the reference by layer and step."""
    done = run(
        "verify", bundle, "--data", bundle.parent / "set.npz", "--targets", "pytorch,onnxruntime", "--json", *more
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["passed"] and document["dataset"] == "set.npz"
    layers = document["targets"]["onnxruntime"]["layers"]
    return document["samples"], {name: layer["reference_spikes"] for name, layer in layers.items()}


def spikes_of_the_first_layer(images: np.ndarray) -> list[int]:
    """Of `two_layers`, whose first layer is given the normalised pixels, in plain numpy."""
    network = two_layers(seed=1)
    node = next(node for name, node in network.graph.nodes.items() if ("input", name) in network.graph.edges)
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    current = np.einsum("nchwij,ocij->nohw", windows, node.weight.astype(np.float64)) + node.bias[:, None, None]
    spec, counts = network.neurons["first"], []
    potential = np.broadcast_to(spec.v_init, current.shape).astype(np.float64)
    for _ in range(2):
        potential = potential + current
        fired = potential >= spec.threshold
        potential = potential - fired * spec.threshold
        counts.append(int(fired.sum()))
    return counts


def test_the_images_are_normalised_as_the_bundle_says(bundle: Path) -> None:
    shift, scale = (np.array(value)[:, None, None] for value in (MEAN, STD))
    by_hand = (PIXELS / 255 - shift) / scale
    for more, count in (
        ((), 3),
        (("--samples", "5"), 5),
        (("--samples", "7", "--mean", "0.3,0.45", "--std", "0.1,0.25"), 7),
    ):
        samples, spikes = counted(bundle, *more)
        assert samples == count
        assert spikes["first"] == spikes_of_the_first_layer(by_hand[:count])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "set.npz", "--mean", "0.5"), "and --mean and --std ask for"),
        (("--data", "set.npz", "--samples", "8"), "has 7 samples: 8 cannot be taken"),
        (("--samples", "2"), "are about the images of --data"),
        (("--mean", "0.3"), "are about the images of --data"),
        (("--data", "gone.npz"), "gone.npz"),
    ],
)
def test_what_contradicts_is_an_error(bundle: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run("verify", bundle, "--targets", "pytorch", *arguments, cwd=bundle.parent)
    assert done.returncode == 2 and message in done.stderr


def test_golden_inputs_are_called_so(bundle: Path) -> None:
    document = json.loads(run("verify", bundle, "--targets", "pytorch", "--json").stdout)
    assert (document["dataset"], document["samples"]) == ("golden inputs", 3)
