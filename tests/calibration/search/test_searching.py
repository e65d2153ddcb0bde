"""A search measures what the public functions measure, on images held out alone, and goes on after a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run
from narrowing import in_memory, present

from calibration import PerSampleMethod
from calibration.choices import Auto, Choices
from calibration.data_parts import DataParts, data_parts
from calibration.search import deployments, search
from calibration.stage import calibrate
from calibration.thresholds import relu_thresholds
from cos_export.capturing import capture
from cos_export.costing import costs
from cos_export.costing.counted_run import shared_run
from cos_export.datasets import load_dataset
from cos_export.errors import InputError
from cos_export.simulation import simulate
from cos_export.zoo.model_source import load_model

CHOICES = Choices(Auto(), 1, samples=60, device="cpu")


class Forbidden:
    """Images that nobody may look at."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the images to measure on were asked for {name}")


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every deployment that is measured."""
    calls: list[int] = []

    def counted(*given: Any, **options: Any) -> Any:
        calls.append(1)
        return shared_run(*given, **options)

    monkeypatch.setattr("calibration.search.searching.shared_run", counted)
    return calls


@pytest.fixture(scope="module")
def module() -> Any:
    return load_model("digits").source


@pytest.fixture(scope="module")
def parts(module: Any) -> DataParts:
    actual = data_parts(module, "digits", CHOICES, held_out=50)
    assert actual.calibration is not None and actual.held_out is not None
    assert len(actual.calibration) == 60 and len(actual.held_out) == 50
    # With noise the network errs, and its spikes elsewhere than its activations.
    images = in_memory(actual.held_out.images)
    noisy = images + np.random.default_rng(0).normal(0, 0.4, images.shape)
    held_out = replace(actual.held_out, images=noisy.astype(np.float32))
    return DataParts(actual.calibration, Forbidden(), held_out)  # type: ignore[arg-type]


def test_the_figures_are_those_of_simulate_and_costs(module: Any, parts: DataParts) -> None:
    candidates, _ = deployments(["half", "mean-matching", "cos"], [1, 2], ["synchronous", "layerwise"], [2])
    actual, ann = search(module, parts, CHOICES, candidates)
    assert [one.deployment for one in actual] == list(candidates) and len(candidates) == 10
    assert any(one.drop_error for one in actual)
    held, given = parts.held_out, parts.calibration
    assert held is not None and given is not None
    network = capture(module, held.images[:1])
    ann_right = module(torch.from_numpy(held.images)).argmax(1).numpy() == held.labels
    assert ann == ann_right.mean()
    for one, measured in zip(candidates, actual, strict=True):
        per_sample = one.method if isinstance(one.method, PerSampleMethod) else None
        ready = network
        if per_sample is None:
            ready = calibrate(network, given.images, one.method, one.steps, schedule=one.schedule, device="cpu")
        trace = simulate(ready, held.images, one.steps, calibration=per_sample, device="cpu")
        expected = costs(ready, held.images, one.steps, per_sample, device="cpu")
        right = trace.logits[-1].argmax(1) == held.labels
        assert measured.accuracy == right.mean() and measured.drop == pytest.approx(100 * (ann - right.mean()))
        one_only = (right != ann_right).mean()
        error = 100 * np.sqrt((one_only - (ann - right.mean()) ** 2) / len(held))
        assert measured.drop_error == pytest.approx(error)
        assert measured.operations == pytest.approx(expected.operations.synaptic_operations)
        assert measured.latency == expected.timing.latency and measured.total_steps == one.steps + one.method.rho


class Rectified(torch.nn.Module):
    """Two ReLUs without thresholds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(64, 32), torch.nn.Linear(32, 32)
        self.head = torch.nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x.flatten(1)))
        logits: torch.Tensor = self.head(torch.relu(self.second(x)))
        return logits


def test_thresholds_are_chosen_with_the_method(
    module: Any, parts: DataParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rectified = Rectified()
    held, given = parts.held_out, parts.calibration
    assert held is not None and given is not None
    rules = ("mmse", "percentile", "maximum")
    candidates, _ = deployments(["half", "mean-matching"], [1, 3], ["synchronous"], [1], thresholds=rules)
    assert len(candidates) == 12
    actual, _ = search(rectified, parts, CHOICES, candidates, state=tmp_path / "s.json")
    assert [one.deployment for one in actual] == list(candidates)
    for measured in actual:
        one = measured.deployment
        thresholds = relu_thresholds(rectified, given.images, one.thresholds, steps=one.steps, device="cpu")  # type: ignore[arg-type]
        ready = capture(rectified, held.images[:1], thresholds=thresholds)
        ready = calibrate(ready, given.images, one.method, one.steps, device="cpu")
        trace = simulate(ready, held.images, one.steps, device="cpu")
        assert measured.accuracy == (trace.logits[-1].argmax(1) == held.labels).mean()
    assert len({one.accuracy for one in actual}) > 3
    counted = counting(monkeypatch)
    again, _ = search(rectified, parts, CHOICES, candidates, state=tmp_path / "s.json")
    assert again == actual and not counted
    # A network of QCFS has no thresholds to find.
    plain, _ = search(module, parts, CHOICES, candidates)
    assert len(plain) == 4 and {one.thresholds for one in plain} == {None}
    with pytest.raises(InputError, match="no threshold method middle"):
        deployments(["half"], [1], ["synchronous"], [1], thresholds=["middle"])


def test_what_is_known_is_not_measured_again_and_another_search_is_refused(
    module: Any, parts: DataParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "s.json"
    first, _ = deployments(["half"], [1], ["synchronous"], [1])
    more, _ = deployments(["half", "mean-matching"], [1], ["synchronous"], [1])
    before, _ = search(module, parts, CHOICES, first, state=state)
    counted = counting(monkeypatch)
    after, _ = search(module, parts, CHOICES, more, state=state)
    assert len(counted) == 1 and after[0] == before[0] and len(after) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]
    held = parts.held_out
    assert held is not None
    with pytest.raises(InputError, match="another search: images held out differ"):
        search(module, DataParts(parts.calibration, held, held.first(40)), CHOICES, more, state=state)
    document = json.loads(state.read_text())
    for damage, message in (
        ({"measured": 3}, "not the state of a search: measured"),
        ({"format": "cos-export-search/2"}, "another file of that name"),
        ({"depends_on": {}}, "another search"),
        ({"measured": [{**document["measured"][0], "accuracy": 2.0}]}, "less than or equal to 1"),
        ({"measured": [{**document["measured"][0], "method": {"name": "nothing"}}]}, "no calibration method"),
    ):
        state.write_text(json.dumps({**document, **damage}))
        with pytest.raises(InputError, match=message):
            search(module, parts, CHOICES, more, state=state)
    state.write_text("not JSON")
    with pytest.raises(InputError):
        search(module, parts, CHOICES, more, state=state)


def test_a_search_needs_images_held_out(module: Any, parts: DataParts) -> None:
    candidates, _ = deployments(["half"], [1], ["synchronous"], [1])
    with pytest.raises(InputError, match="others to compare on"):
        search(module, DataParts(parts.calibration, parts.evaluation), CHOICES, candidates)


GIVEN = ("--steps", "1,2", "--methods", "half", "--samples", "60", "--held-out", "100", "--golden", "4")


def test_the_images_to_measure_on_decide_nothing(tmp_path: Path) -> None:
    """The second half of a file is what is measured on: with noise and wrong labels there, the search is the same."""
    digits, rng = load_dataset("digits", "train"), np.random.default_rng(0)
    images, labels = digits.images[:400].copy(), present(digits.labels)[:400].copy()
    np.savez(tmp_path / "good.npz", images=images, labels=labels)
    images[160:], labels[160:] = rng.random(images[160:].shape), rng.integers(0, 10, 240)
    np.savez(tmp_path / "poisoned.npz", images=images, labels=labels)
    actual = []
    for name in ("good", "poisoned"):
        done = run(
            *("search", "digits", "--data", f"{name}.npz", "--max-drop", "1", "--minimise", "operations", "--json"),
            *GIVEN,
            *("--targets", "pytorch", "--out", name),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        actual.append(json.loads(done.stdout))
    assert actual[0]["search"] == actual[1]["search"]
    # What is deployed is measured, and nothing that was compared on the images held out once more.
    assert [list(row["accuracy"]) for one in actual for row in one["metrics"]["methods"]] == [["1"], ["1"]]
    accuracies = [one["metrics"]["methods"][-1]["accuracy"]["1"] for one in actual]
    assert accuracies[0] > 0.9 and accuracies[1] < 0.5
    assert actual[0]["search"]["held_out_samples"] == 100 and actual[0]["metrics"]["samples"] == 240


KILLED = """
import os, signal, sys
from calibration.search import searching
measure, calls = searching.shared_run, []
def killed(*args, **options):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return measure(*args, **options)
searching.shared_run = killed
import cli
cli.main()
"""


def test_a_killed_search_goes_on_and_comes_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["search", "digits", "--data", "digits", "--max-drop", "5", *GIVEN, "--out", "out", "--json"]
    died = subprocess.run(
        [sys.executable, "-c", KILLED, *command], cwd=tmp_path, capture_output=True, check=False, timeout=300
    )
    assert died.returncode == -signal.SIGKILL
    state = tmp_path / "out.search.json"
    kept = json.loads(state.read_text())["measured"]
    assert len(kept) == 2 and not (tmp_path / "out").exists()
    counted = counting(monkeypatch)
    resumed = run(*command, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert len(counted) == 2
    document = json.loads(resumed.stdout)
    assert all(one in document["search"]["measured"] for one in kept) and len(document["search"]["measured"]) == 4
    whole = run(*[word if word != "out" else "whole" for word in command], cwd=tmp_path)
    assert json.loads(whole.stdout)["search"] == document["search"]
    assert document["num_timesteps"] == document["search"]["winner"]["steps"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("out", "out.search.json", "out.search.png", "whole", "whole.search.json", "whole.search.png")
    ]


def test_nothing_that_keeps_the_accuracy_is_exit_code_1_and_no_bundle(tmp_path: Path) -> None:
    given = ("--data", "digits", "--steps", "1", "--methods", "half", "--schedules", "synchronous", "--samples", "60")
    table = run("search", "digits", *given, "--max-drop", "0", "--out", "out", cwd=tmp_path)
    assert table.returncode == 1, table.stdout + table.stderr
    assert "Nothing loses at most 0 points" in table.stdout and "Nearest is half, T = 1, synchronous" in table.stdout
    document = json.loads(
        run("search", "digits", *given, "--max-drop", "0", "--out", "out", "--json", cwd=tmp_path).stdout
    )
    assert document["bundle"] is None and document["search"]["nearest"]["drop"] > 0
    assert (tmp_path / "out.search.png").read_bytes().startswith(b"\x89PNG") and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--steps", "0"), "--steps"),
        (("--steps", "3..1"), "--steps takes"),
        (("--steps", "1..5000"), "1,000 numbers at most"),
        (("--steps", "4,1000000000"), "--steps takes"),
        (("--rho", "0"), "--rho"),
        (("--max-drop", "nan"), "--max-drop"),
        (("--max-drop", "inf"), "--max-drop is"),
        (("--steps", ""), "--steps takes"),
        (("--methods", "nothing"), "no calibration method"),
        (("--schedules", "sometimes"), "schedule is one of"),
        (("--methods", "cos", "--schedules", "layerwise"), "nothing to measure"),
        (("--numerics", "int4"), "numerics must be"),
        (("--max-drop", "-1"), "--max-drop"),
        (("--minimise", "energy"), "--minimise"),
    ],
)
def test_wrong_input_is_refused_before_any_work(wrong: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = run("search", "digits", "--data", "digits", *wrong, "--out", "out", cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_is_not_ours_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out.search.png").write_text("mine")
    done = run("search", "digits", "--data", "digits", "--out", "out", cwd=tmp_path)
    assert done.returncode == 2 and "is not replaced" in done.stderr


def test_integers_are_searched_too(tmp_path: Path) -> None:
    done = run(
        *("search", "digits", "--data", "digits", "--numerics", "int8", "--max-drop", "10", *GIVEN),
        *("--steps", "1", "--schedules", "layerwise", "--out", "out", "--json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["numerics"] == "int8" and document["parity"]["targets"]["onnxruntime"]["mismatches"] == 0
