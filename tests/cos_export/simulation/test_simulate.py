from __future__ import annotations

import math
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_networks import two_layers

from calibration import COS
from cos_export.errors import InputError
from cos_export.network import SampleStates
from cos_export.network.schedule import Schedule
from cos_export.simulation import simulate
from cos_export.simulation.neuron import NeuronTensors, integrate_and_fire
from cos_export.simulation.program import Program
from cos_export.simulation.trace import Trace

IMAGES = np.random.default_rng(0).normal(size=(7, 2, 5, 5)).astype(np.float32)


def test_the_trace_has_every_step_and_layer() -> None:
    network = two_layers(seed=1)
    trace = simulate(network, IMAGES, 5, record_potentials=True)
    assert trace.logits.shape == (5, 7, 4) and (trace.steps, trace.total_steps) == (5, 5)
    assert {name: value.shape for name, value in trace.spikes.items()} == {
        "first": (5, 7, 3, 5, 5),
        "second": (5, 7, 6),
    }
    assert trace.spikes["first"].dtype == np.bool_ and trace.potentials["second"].shape == (5, 7, 6)
    bare = simulate(network, IMAGES, 5, record_spikes=False)
    assert not bare.spikes and not bare.potentials and np.array_equal(bare.logits, trace.logits)


def test_logits_are_the_mean_of_the_first_t_outputs() -> None:
    network = two_layers(seed=1)
    trace = simulate(network, IMAGES, 4)
    head = network.graph.nodes["head"]
    outputs = trace.spikes["second"].astype(np.float64) @ head.weight.T + head.bias
    for t in range(1, 5):
        np.testing.assert_allclose(trace.logits[t - 1], outputs[:t].mean(0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_batches_do_not_matter(batch_size: int) -> None:
    network = two_layers(seed=2)
    whole, parts = simulate(network, IMAGES, 3), simulate(network, IMAGES, 3, batch_size=batch_size)
    assert all(np.array_equal(whole.spikes[name], parts.spikes[name]) for name in network.layers)


@pytest.mark.parametrize(
    ("schedule", "recorded", "batches"), [("synchronous", False, 4), ("layerwise", True, 4), ("layerwise", False, 1)]
)
def test_of_a_window_the_sums_are_held_for_as_many_samples_as_of_one_step(
    schedule: Schedule, recorded: bool, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is room for 11 numbers of each neuron: for two samples of four steps, or eight of one sum each."""
    network = replace(two_layers(seed=0), schedule=schedule)
    largest = max(math.prod(shape) for shape in network.shapes.values())
    monkeypatch.setattr("cos_export.network.workload._HELD", 11 * largest)
    reports: list[int] = []
    trace = simulate(network, IMAGES, 4, record_spikes=recorded, progress=lambda *told: reports.append(told[1]))
    assert len(reports) == batches + 1
    monkeypatch.undo()
    np.testing.assert_allclose(trace.logits, simulate(network, IMAGES, 4).logits, rtol=1e-6)


def test_what_was_read_is_dropped_as_the_walk_goes_on() -> None:
    """Without recording, memory does not grow with the depth: a layer's train is gone two layers later."""
    network = two_layers(seed=3)
    trains: list[weakref.ref[torch.Tensor]] = []
    alive: list[list[bool]] = []

    def rule(name: str, neuron: NeuronTensors, currents: torch.Tensor) -> torch.Tensor:
        alive.append([train() is not None for train in trains])
        spikes = integrate_and_fire(currents, 4, neuron).spikes
        trains.append(weakref.ref(spikes))
        return spikes

    Program(network).propagate(torch.from_numpy(IMAGES), rule)
    assert alive == [[], [False]]


def test_accuracy_counts_right_answers_at_every_step() -> None:
    logits = np.array([[[1, 0], [1, 0]], [[1, 0], [0, 1]]], np.float32)
    trace = Trace(logits)
    assert trace.accuracy(np.array([0, 1])).tolist() == [0.5, 1.0]
    with pytest.raises(InputError, match="2 images and 3 labels"):
        trace.accuracy(np.array([0, 1, 1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "at least 1"),
        ({"steps": None}, "how many with steps="),
        ({"batch_size": 0}, "batch_size"),
        ({"device": "quantum"}, "is not a device"),
        ({"states": SampleStates(v_init={"third": np.zeros((7, 6), np.float32)})}, "'third', which the network"),
        ({"states": SampleStates(v_init={"second": np.zeros((6,), np.float32)})}, r"must have shape \(7, 6\)"),
        ({"states": SampleStates(), "calibration": COS()}, "not both"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(two_layers(seed=1), IMAGES, **{"steps": 2, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, 2, 5, 5)), "no images"),
        (np.zeros((1, 5, 5)), "takes images of shape"),
        (np.full((1, 2, 5, 5), np.inf), "not finite"),
        (np.full((1, 2, 5, 5), "a"), "must be uint8 or of a float type"),
    ],
)
def test_wrong_images(images: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(two_layers(seed=1), images, 2)
