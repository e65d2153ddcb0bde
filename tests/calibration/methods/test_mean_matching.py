"""Mean matching in a deep network: never worse than its start, by rates that are counted here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest import MonkeyPatch
from torch import nn
from two_layer_reference import Doubles

from calibration import MeanMatching, calibrate
from calibration.checkpoint import Checkpoint
from calibration.methods.mean_matching import STAGE
from calibration.thresholds import relu_thresholds
from cos_export.capturing import capture
from cos_export.network import SpikingNetwork
from cos_export.network.schedule import Schedule

IMAGES = np.random.default_rng(0).random((96, 8), np.float32)
DEPTH, STEPS = 14, 4


@pytest.fixture(scope="module")
def network() -> SpikingNetwork:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs in (8, *[24] * (DEPTH - 1)):
        layers += [nn.Linear(inputs, 24), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight, nonlinearity="relu")  # type: ignore[arg-type]
    module = nn.Sequential(*layers, nn.Linear(24, 3))
    thresholds = relu_thresholds(module, IMAGES, "mmse", steps=STEPS, device="cpu")
    return capture(module, IMAGES[:2], thresholds=thresholds)


def fired(currents: Doubles, start: Doubles, theta: float, schedule: Schedule) -> Doubles:
    """Spikes of a layer, (steps, samples, neurons), from its currents."""
    if schedule == "layerwise":
        counts = np.clip(np.floor((start + currents.sum(0)) / theta), 0, STEPS)
        return np.stack([counts > step for step in range(STEPS)]).astype(np.float64)
    potential, spikes = np.repeat(start[None], currents.shape[1], 0), []
    for step in currents:
        potential = potential + step
        spikes.append((potential >= theta).astype(np.float64))
        potential = potential - theta * spikes[-1]
    return np.stack(spikes)


def rate_errors(network: SpikingNetwork, starts: dict[str, Doubles]) -> dict[str, Doubles]:
    """E[a_ann - theta spikes / T] / theta of each neuron, from the equations in plain numpy."""
    activations = IMAGES.astype(np.float64)
    trains = np.repeat(activations[None], STEPS, 0)
    errors = {}
    for name in network.layers:
        [source] = network.predecessors[name]
        node, theta = network.graph.nodes[source], float(network.neurons[name].threshold[0])
        weight, bias = np.asarray(node.weight, np.float64), np.asarray(node.bias, np.float64)
        activations = np.clip((activations @ weight.T + bias) / theta, 0.0, 1.0)
        trains = fired(trains @ weight.T + bias, starts[name], theta, network.schedule)
        errors[name] = activations.mean(0) - trains.mean((0, 1))
    return errors


def mean_square(errors: dict[str, Doubles]) -> float:
    return float(np.mean([np.square(error).mean() for error in errors.values()]))


def potentials(network: SpikingNetwork) -> dict[str, Doubles]:
    return {name: spec.v_init.astype(np.float64) for name, spec in network.neurons.items()}


def test_all_layers_at_once_end_worse_than_they_started(network: SpikingNetwork) -> None:
    """Why layers come one after the other: the shift of all of them, repeated ten times without looking."""
    starts = potentials(network)
    before = mean_square(rate_errors(network, starts))
    for _ in range(10):
        errors = rate_errors(network, starts)
        starts = {name: v + STEPS * network.neurons[name].threshold * errors[name] for name, v in starts.items()}
    assert mean_square(rate_errors(network, starts)) > 3 * before


@pytest.mark.parametrize("rounds", [1, 3, 10])
@pytest.mark.parametrize(("schedule", "share"), [("synchronous", 0.1), ("layerwise", 0.9)])
def test_rounds_never_leave_it_worse_than_its_start(
    network: SpikingNetwork, rounds: int, schedule: Schedule, share: float
) -> None:
    network = replace(network, schedule=schedule)
    matched = calibrate(network, IMAGES, MeanMatching(rounds), STEPS, batch_size=40, device="cpu")
    before, after = (mean_square(rate_errors(network, potentials(n))) for n in (network, matched))
    assert after < share * before


def test_more_rounds_come_closer(network: SpikingNetwork) -> None:
    """In the first layer, whose input no other layer changes, no neuron is ever further off than with fewer rounds."""
    first = network.layers[0]
    last = np.full(24, np.inf)
    for rounds in (1, 2, 4, 8):
        matched = calibrate(network, IMAGES, MeanMatching(rounds), STEPS, device="cpu")
        error = np.abs(rate_errors(network, potentials(matched))[first])
        assert (error <= last + 1e-12).all()
        last = error


def test_a_start_that_nothing_betters_is_returned(network: SpikingNetwork) -> None:
    """Of an image the artificial rates are matched, then a start that is right already has no error to lose."""
    matched = calibrate(network, IMAGES, MeanMatching(10), STEPS, device="cpu")
    again = calibrate(matched, IMAGES, MeanMatching(10), STEPS, device="cpu")
    errors = [mean_square(rate_errors(network, potentials(n))) for n in (matched, again)]
    assert errors[1] <= errors[0]


def test_it_goes_on_after_a_kill(network: SpikingNetwork, tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoint.__init__, "__defaults__", (None, None, 0.0))
    kept, calls = tmp_path / "state.safetensors", {"network": network, "images": IMAGES, "steps": STEPS}
    method = MeanMatching(3)
    whole = calibrate(**calls, method=method)  # type: ignore[arg-type]

    def killing(stage: str, done: int, total: int) -> None:
        if (stage, done) == (STAGE, 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(**calls, method=method, resume=kept, progress=killing)  # type: ignore[arg-type]
    seen: list[str] = []
    again = calibrate(
        **calls,  # type: ignore[arg-type]
        method=method,
        resume=kept,
        progress=lambda stage, done, total: seen.append(stage),
    )
    assert set(seen) == {STAGE} and kept.exists(), "the result stays until its bundle is in place"
    assert all(np.array_equal(whole.neurons[name].v_init, again.neurons[name].v_init) for name in network.layers)
