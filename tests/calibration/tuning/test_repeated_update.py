"""Updates that are recorded and replayed, held against the same updates done one by one."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from replayed_operations import Operations, ReplayedOperations
from small_networks import two_layers
from torch import Tensor

from calibration import Static, calibrate
from calibration.checkpoint import Checkpoint
from calibration.tuning import repeated_update
from calibration.tuning.repeated_update import WARM, RepeatedUpdate
from cos_export.errors import Notice
from cos_export.network import SpikingNetwork
from cos_export.network.schedule import SCHEDULES, Schedule

IMAGES = np.random.default_rng(0).normal(size=(40, 2, 5, 5)).astype(np.float32)
METHOD = Static(("potential", "threshold", "weight"), updates=12, samples=8, rounds=1, flip=True, shift=1)


@pytest.fixture(autouse=True)
def tuned_whatever_it_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was tuned is returned, and not the start where so few updates have not helped."""
    shown = cycle([1.0, 0.0])
    monkeypatch.setattr(Static, "_divergence", lambda *_: next(shown))


def arrays(network: SpikingNetwork) -> dict[str, Any]:
    held = {f"{name}/{key}": getattr(spec, key) for name, spec in network.neurons.items() for key in ("v_init", "bias")}
    held |= {f"{name}/theta": spec.threshold for name, spec in network.neurons.items()}
    return held | {name: node.weight for name, node in network.graph.nodes.items() if hasattr(node, "weight")}


def assert_same(one: SpikingNetwork, other: SpikingNetwork) -> None:
    for name, array in arrays(one).items():
        np.testing.assert_array_equal(array, arrays(other)[name], err_msg=name)


def recording(monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[ReplayedOperations]:
    """Lets every calibration record its updates, by a recorder that goes into the list."""
    recorders: list[ReplayedOperations] = []
    original = RepeatedUpdate.__init__

    def with_recorder(self: RepeatedUpdate, work: Any, state: Any, recorder: object = None) -> None:
        recorders.append(ReplayedOperations(state, **options))
        original(self, work, state, recorders[-1])

    monkeypatch.setattr(RepeatedUpdate, "__init__", with_recorder)
    return recorders


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("change", [{}, {"flip": False, "shift": 0}, {"tune": ("potential", "bias")}], ids=str)
def test_replayed_updates_are_those_done_one_by_one(
    monkeypatch: pytest.MonkeyPatch, schedule: Schedule, change: dict[str, Any]
) -> None:
    """Operations are replayed with the numbers of the host as they were: rates, shares and images must not be such."""
    network = two_layers(seed=8)
    method = replace(METHOD, precision="float32", **change)
    if schedule == "layerwise" and "bias" in method.tune:
        method = replace(method, tune=("potential",))
    plain = calibrate(network, IMAGES, method, 2, schedule=schedule, device="cpu")
    assert any((spec.v_init != network.neurons[name].v_init).any() for name, spec in plain.neurons.items())
    recorders = recording(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        replayed = calibrate(network, IMAGES, method, 2, schedule=schedule, device="cpu")
    assert_same(replayed, plain)
    (recorder,) = recorders
    assert (recorder.plain, recorder.recorded, recorder.replayed) == (WARM + 2, 1, 12 - WARM - 1)


def test_a_replayed_calibration_goes_on_after_a_kill(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network, original = two_layers(seed=8), Checkpoint.__init__
    plain = calibrate(network, IMAGES, METHOD, 2, device="cpu")
    monkeypatch.setattr(Checkpoint, "__init__", lambda self, path, given: original(self, path, given, every=0.0))
    recorders = recording(monkeypatch)

    def kill(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("tuning", 8):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(network, IMAGES, METHOD, 2, device="cpu", resume=tmp_path / "state", progress=kill)
    assert_same(calibrate(network, IMAGES, METHOD, 2, device="cpu", resume=tmp_path / "state"), plain)
    assert [recorder.replayed for recorder in recorders] == [8 - WARM - 1, 12 - 7 - WARM - 1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"fails": RuntimeError("operation not permitted when stream is capturing\nmore")}, "is capturing"),
        ({"stale": True}, "replayed, it did not come to"),
    ],
    ids=["fails", "stale"],
)
def test_what_cannot_be_replayed_is_said_once_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], reason: str
) -> None:
    network = two_layers(seed=8)
    plain = calibrate(network, IMAGES, METHOD, 2, device="cpu")
    recorders = recording(monkeypatch, **options)
    with pytest.warns(Notice, match=rf"{reason}.*All updates are launched one by one") as said:
        actual = calibrate(network, IMAGES, METHOD, 2, device="cpu")
    assert len([one for one in said if one.category is Notice]) == 1
    assert recorders[0].replayed == (1 if "stale" in options else 0)
    assert_same(actual, plain)


def test_other_errors_than_those_of_recording_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    recording(monkeypatch, fails=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        calibrate(two_layers(seed=8), IMAGES, METHOD, 2, device="cpu")


def test_inputs_of_another_shape_are_never_put_where_others_were() -> None:
    total, seen = torch.zeros(3), list[int]()

    def work(values: Tensor) -> None:
        seen.append(len(values))
        total.add_(values.sum(0))

    recorder = ReplayedOperations(lambda: [total])
    update, expected = RepeatedUpdate(work, lambda: [total], recorder), np.zeros(3)
    for number in range(12):
        values = torch.full((2 if number in (1, 7, 11) else 4, 3), float(number))
        update(values)
        expected += values.numpy().sum(0)
    np.testing.assert_array_equal(total, expected)
    # Those of two are always done plainly; of the nine others the first ones, the recorded and the compared one.
    assert seen.count(2) == 3 and seen.count(4) == WARM + 3
    assert recorder.replayed == 9 - WARM - 1


def test_an_update_waits_for_nothing_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host would wait where it reads a number of a tensor or copies one that it has made."""
    waited: list[str] = []
    original = RepeatedUpdate.__call__

    def told(name: str, plain: Any) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            waited.append(name)
            return plain(*given, **options)

        return call

    def watched(self: RepeatedUpdate, *inputs: Tensor) -> None:
        with monkeypatch.context() as patched:
            for owner, name in HOST:
                patched.setattr(owner, name, told(name, getattr(owner, name)))
            with Operations() as operations:
                original(self, *inputs)
        waited.extend(operations.waits())

    monkeypatch.setattr(RepeatedUpdate, "__call__", watched)
    for schedule in SCHEDULES:
        calibrate(two_layers(seed=8), IMAGES, METHOD, 2, schedule=schedule, device="cpu")
    assert waited == []
    watched(RepeatedUpdate(lambda values: float(values.sum()), list), torch.ones(2))  # type: ignore[arg-type]
    assert "_local_scalar_dense" in waited, "the watch itself sees what it should"


HOST = [(torch, "tensor"), (torch, "as_tensor"), (torch, "from_numpy"), (Tensor, "numpy"), (Tensor, "cpu")]
HOST += [(Tensor, "item"), (Tensor, "tolist"), (Tensor, "__bool__"), (Tensor, "__float__")]


def test_how_far_apart_is_told_from_rounding() -> None:
    one = [torch.tensor([1.0, 2.0]), torch.zeros(2)]
    near, far = [one[0] * (1 + 1e-6), one[1]], [one[0], torch.tensor([0.0, 1e-9])]
    assert repeated_update._same(near, one) and not repeated_update._same(far, one)
