"""What is measured on images held out decides which method is exported."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from small_networks import two_layers

from calibration.methods.half import Half
from calibration.methods.mean_matching import MeanMatching
from calibration.selection import Candidate, Selection, hold_out, select
from cos_export.datasets import Dataset
from cos_export.divergence import agreement, divergence
from cos_export.network import SpikingNetwork
from cos_export.simulation import ann_logits, simulate

STEPS = 2


def images(count: int) -> Dataset:
    pictures = np.random.default_rng(1).normal(size=(count, 2, 5, 5)).astype(np.float32)
    return Dataset(pictures, np.zeros(count, np.int64), "noise", "none")


def silenced(network: SpikingNetwork) -> SpikingNetwork:
    """The network with potentials so low that nothing fires: worse than any calibration."""
    return network.with_neurons({name: replace(s, v_init=s.v_init - 1000) for name, s in network.neurons.items()})


def chosen_of(candidates: list[Candidate], held_out: Dataset | None, *, named: bool = False) -> tuple[str, Selection]:
    start = two_layers(seed=8)
    reference = None if held_out is None else ann_logits(start, held_out.images)
    candidate, actual = select(start, candidates, held_out, reference, STEPS, named=named, skipped={"bias": "why"})
    assert actual.chosen == candidate.method.name
    return candidate.method.name, actual


def test_the_measures_are_those_of_pytorch() -> None:
    rng = np.random.default_rng(0)
    one, other = (5 * rng.normal(size=(40, 7)).astype(np.float32) for _ in range(2))
    true, actual = (torch.log_softmax(torch.from_numpy(x).double(), 1) for x in (one, other))
    expected = torch.nn.functional.kl_div(actual, true, log_target=True, reduction="batchmean")
    assert divergence(one, other) == pytest.approx(float(expected))
    assert divergence(one, one) == 0 and agreement(one, one) == 1
    assert agreement(one, other) == pytest.approx((true.argmax(1) == actual.argmax(1)).double().mean())


def test_the_closest_is_taken_and_its_figures_are_those_of_a_run() -> None:
    network, held = two_layers(seed=8), images(30)
    worse = Candidate(MeanMatching(), silenced(network))
    name, actual = chosen_of([Candidate(Half(), network), worse], held)
    assert name == "half" and actual.samples == 30 and actual.warning is None and actual.skipped == {"bias": "why"}
    reference = ann_logits(network, held.images)
    for score, n in zip(actual.scores, (network, silenced(network)), strict=True):
        logits = simulate(n, held.images, STEPS).logits[-1]
        assert (score.divergence, score.agreement) == (divergence(reference, logits), agreement(reference, logits))
    # The names are exchanged, and so is the choice.
    assert chosen_of([Candidate(MeanMatching(), network), worse], held)[0] == "mean-matching"


def test_a_method_that_was_named_is_exported_and_spoken_of_where_it_is_worse_than_none() -> None:
    network, held = two_layers(seed=8), images(30)
    name, actual = chosen_of([Candidate(MeanMatching(), silenced(network))], held, named=True)
    assert name == "mean-matching" and actual.warning is not None
    assert "mean-matching is worse than half" in actual.warning and "--method auto" in actual.warning
    assert actual.to_dict()["warning"] == actual.warning
    json.dumps(actual.to_dict(), allow_nan=False)
    assert chosen_of([Candidate(MeanMatching(), network)], held, named=True)[1].warning is None


def test_without_images_nothing_is_measured_and_the_first_is_taken() -> None:
    network = two_layers(seed=8)
    name, actual = chosen_of([Candidate(Half(), network), Candidate(MeanMatching(), network)], None)
    assert (name, actual.samples, actual.scores) == ("half", 0, ())


@pytest.mark.parametrize(
    ("pool", "samples", "used", "held"),
    [
        (2000, 1000, 1000, 250),
        (1100, 1000, 880, 220),
        (1200, 1000, 1000, 200),
        (40, 33, 33, 7),
        (20, 1000, 16, 4),
        (2, 1000, 1, 1),
        (1, 1000, 1, 0),
        (9000, 4000, 4000, 256),
        (1000, 1000, 800, 200),
    ],
)
def test_what_is_held_out(pool: int, samples: int, used: int, held: int) -> None:
    whole = images(pool)
    calibration, held_out = hold_out(whole, samples)
    assert (len(calibration), 0 if held_out is None else len(held_out)) == (used, held)
    if held_out is not None:
        both = np.concatenate([calibration.images, held_out.images])
        assert np.array_equal(both, whole.images[: used + held])


def test_a_conversion_says_what_was_taken_and_why(tmp_path: Path) -> None:
    convert = ("convert-and-export", "digits", "--data", "digits", "--steps", "2", "--samples", "80", "--golden", "4")
    done = run(*convert, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    actual = manifest["metrics"]["selection"]
    scores = {score["method"]: score["divergence"] for score in actual["scores"]}
    assert set(scores) == {"half", "mean-matching", "bias"} and not actual["named"] and actual["samples"] == 20
    assert actual["chosen"] == manifest["method"] == min(scores, key=lambda name: scores[name])
    assert f"Method: {actual['chosen']}, the closest to the artificial network on 20 images held out" in done.stdout
