from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_networks import two_layers

from calibration import MeanMatching, Static, StaticMethod, calibrate
from calibration.checkpoint import Checkpoint
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork

IMAGES = np.random.default_rng(0).normal(size=(48, 2, 5, 5)).astype(np.float32)
TUNED = Static(tune=("potential", "threshold"), updates=12, samples=16, rounds=3)
EVERYTHING = Static(tune=("potential", "bias", "weight"), updates=12, samples=16, rounds=3, flip=True, shift=1)
ASKING = "asking the teacher"
"""What is done again after an interruption."""
STARTED = replace(EVERYTHING, start_from=calibrate(two_layers(seed=8), IMAGES, EVERYTHING, 1))


@pytest.fixture(autouse=True)
def write_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every round is kept, so that each can be the last before a kill."""
    original = Checkpoint.__init__

    def eager(self: Checkpoint, path: Path | None = None, calibration: object = None) -> None:
        original(self, path, calibration, every=0.0)  # type: ignore[arg-type]

    monkeypatch.setattr(Checkpoint, "__init__", eager)


def kill_at(stage: str, done: int):  # type: ignore[no-untyped-def]
    def progress(name: str, at: int, total: int) -> None:
        if (name, at) == (stage, done):
            raise KeyboardInterrupt

    return progress


def assert_same(first: SpikingNetwork, second: SpikingNetwork) -> None:
    for name in first.layers:
        one, other = first.neurons[name], second.neurons[name]
        assert np.array_equal(one.v_init, other.v_init) and np.array_equal(one.threshold, other.threshold)
        assert (one.bias is None) == (other.bias is None)
        if one.bias is not None and other.bias is not None:
            assert np.array_equal(one.bias, other.bias)
    for name, node in first.graph.nodes.items():
        if hasattr(node, "weight"):
            assert np.array_equal(node.weight, second.graph.nodes[name].weight)


@pytest.mark.parametrize(
    ("method", "stage", "done"),
    [
        (MeanMatching(rounds=4), "matching mean rates", 1),
        (MeanMatching(rounds=4), "matching mean rates", 2),
        (TUNED, "matching mean rates", 2),
        (TUNED, "tuning", 1),
        (EVERYTHING, "correcting the bias of each step", 4),
        (EVERYTHING, "tuning", 7),
        (EVERYTHING, "tuning", 12),
        (STARTED, "tuning", 7),
    ],
)
def test_after_a_kill_it_comes_to_the_same_result(tmp_path: Path, method: StaticMethod, stage: str, done: int) -> None:
    network, kept = two_layers(seed=8), tmp_path / "state.safetensors"
    whole = calibrate(network, IMAGES, method, 2, batch_size=16)
    with pytest.raises(KeyboardInterrupt):
        calibrate(network, IMAGES, method, 2, batch_size=16, resume=kept, progress=kill_at(stage, done))
    assert kept.exists()
    seen: list[tuple[str, int]] = []
    again = calibrate(
        network,
        IMAGES,
        method,
        2,
        batch_size=16,
        resume=kept,
        progress=lambda name, at, total: seen.append((name, at)),
    )
    assert next(one for one in seen if one[0] != ASKING) == (stage, done - 1), (
        "it goes on from the last state that was kept"
    )
    assert_same(whole, again)
    seen.clear()
    at_once = calibrate(
        network,
        IMAGES,
        method,
        2,
        batch_size=16,
        resume=kept,
        progress=lambda name, at, total: seen.append((name, at)),
    )
    assert seen == [], "what is finished is not computed again"
    assert_same(whole, at_once)
    assert (at_once.method, at_once.num_timesteps) == (whole.method, whole.num_timesteps)


def of_levels(network: SpikingNetwork, levels: int) -> SpikingNetwork:
    return network.with_neurons({name: replace(spec, levels=levels) for name, spec in network.neurons.items()})


def test_what_is_finished_is_not_handed_to_a_network_of_other_levels(tmp_path: Path) -> None:
    """Mean matching comes to other potentials for them, and no array of the two networks differs before it."""
    coarse, fine = (of_levels(two_layers(seed=8), levels) for levels in (1, 4))
    kept = tmp_path / "state.safetensors"
    first, other = (calibrate(one, IMAGES, "mean-matching", 2) for one in (coarse, fine))
    assert not np.array_equal(first.neurons["first"].v_init, other.neurons["first"].v_init)
    assert_same(calibrate(coarse, IMAGES, "mean-matching", 2, resume=kept), first)
    with pytest.raises(InputError, match=r"state of another calibration(?s:.*)network: "):
        calibrate(fine, IMAGES, "mean-matching", 2, resume=kept)


def test_the_state_of_another_calibration_is_refused(tmp_path: Path) -> None:
    network, kept = two_layers(seed=8), tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        calibrate(network, IMAGES, TUNED, 2, resume=kept, progress=kill_at("tuning", 5))
    before = kept.read_bytes()
    for change in (
        {"steps": 3},
        {"method": replace(TUNED, seed=1)},
        {"images": IMAGES[:40]},
        {"images": IMAGES + 1},
        {"network": two_layers(seed=9)},
        {"network": of_levels(network, 4)},
        {"batch_size": 8},
        {"method": replace(TUNED, start_from=two_layers(seed=8))},
    ):
        given = {"network": network, "images": IMAGES, "method": TUNED, "steps": 2, "resume": kept} | change
        with pytest.raises(InputError, match=r"state of another calibration\. Delete it"):
            calibrate(**given)  # type: ignore[arg-type]
    assert kept.read_bytes() == before


def test_a_file_that_is_no_state_is_refused(tmp_path: Path) -> None:
    kept = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        calibrate(two_layers(8), IMAGES, TUNED, 2, resume=kept, progress=kill_at("tuning", 5))
    whole = kept.read_bytes()
    for content in (b"", b"no state", whole[: len(whole) // 2]):
        kept.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as the state of a calibration"):
            calibrate(two_layers(8), IMAGES, TUNED, 2, resume=kept)
