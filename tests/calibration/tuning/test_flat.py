"""Parameters in flat tensors, held against Adam's published equations in float64."""

from __future__ import annotations

import numpy as np
import torch

from calibration.tuning.flat import FlatParameters
from calibration.tuning.parameters import Parameter
from cos_export.simulation.neuron import channels_last

SIZES = {"a/potential": ((2, 3, 4), 0.5), "a/threshold": ((), 0.2), "b/weight": ((4, 3, 2, 2), 1.0), "c": ((5,), 0.5)}
RATE, UPDATES = 0.01, 6
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


def parameters() -> dict[str, Parameter]:
    made = {key: Parameter(channels_last(torch.zeros(size)), rate) for key, (size, rate) in SIZES.items()}
    for parameter in made.values():
        parameter.values.requires_grad_(True)
    return made


def drawn(key: str, update: int) -> np.ndarray:
    random = np.random.default_rng((update, sorted(SIZES).index(key)))
    return random.normal(size=SIZES[key][0]).astype(np.float32)


def moved(given: dict[str, Parameter], flat: FlatParameters, updates: range) -> None:
    for update in updates:
        flat.clear_gradients()
        loss = sum(
            (parameter.values * torch.from_numpy(np.asarray(drawn(key, update)))).sum()
            for key, parameter in given.items()
        )
        loss.backward()  # type: ignore[union-attr]
        factor, share = torch.tensor([1.0 / (1 + update), 0.3], dtype=torch.float64)
        with torch.no_grad():
            flat.step(factor, share)


def test_they_move_as_adam_says_each_at_its_rate_and_the_averages_follow() -> None:
    given = parameters()
    flat = FlatParameters(given, RATE)
    moved(given, flat, range(UPDATES))
    averages = flat.averages()
    assert len(flat.gradients()) == 3, "one tensor for each rate"
    for key, (size, rate) in SIZES.items():
        value, average, first, second = (np.zeros(size) for _ in range(4))
        for update in range(UPDATES):
            gradient = drawn(key, update).astype(np.float64)
            first = BETA1 * first + (1 - BETA1) * gradient
            second = BETA2 * second + (1 - BETA2) * gradient**2
            t = update + 1
            hats = first / (1 - BETA1**t), second / (1 - BETA2**t)
            value = value - RATE * rate / (1 + update) * hats[0] / (np.sqrt(hats[1]) + EPS)
            average = average + 0.3 * (value - average)
        np.testing.assert_allclose(given[key].values.detach(), value, rtol=2e-5, atol=1e-8)
        np.testing.assert_allclose(averages[key], average, rtol=2e-5, atol=1e-8)


def test_from_a_state_they_go_on_to_the_bit() -> None:
    given = parameters()
    flat = FlatParameters(given, RATE)
    moved(given, flat, range(2))
    kept = {key: value.detach().clone() for key, value in flat.state().items()}
    moved(given, flat, range(2, UPDATES))
    again = parameters()
    other = FlatParameters(again, RATE)
    other.load(kept)
    moved(again, other, range(2, UPDATES))
    assert set(other.state()) == set(flat.state()) and "adam/b/weight/exp_avg_sq" in kept
    for key, value in flat.state().items():
        assert value.shape == kept[key].shape and torch.equal(value, other.state()[key]), key
