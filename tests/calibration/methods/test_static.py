from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from divergence import divergence
from small_networks import layer, one_neuron, two_layers
from torch.utils.data import Dataset

from calibration import MeanMatching, Static, calibrate
from calibration.tuning.surrogate import differentiable_train
from cos_export.errors import InputError, UnavailableError
from cos_export.exporting import export
from cos_export.network import NeuronSpec
from cos_export.simulation.neuron import integrate_and_fire, neuron_tensors
from targets.verification import verify

IMAGES = np.random.default_rng(0).normal(size=(48, 2, 5, 5)).astype(np.float32)
MANY = np.random.default_rng(1).normal(size=(240, 2, 5, 5)).astype(np.float32)
NEEDS_COMPILER = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler here")
SHORT = Static(updates=60, samples=16, rounds=3, learning_rate=0.04)


def slow_train(currents: torch.Tensor, v_init: torch.Tensor, theta: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The contract step by step, each spike with the triangle as its derivative by m / theta."""
    potential, train = v_init, []
    for current, beta in zip(currents, bias, strict=True):
        m = potential + current + beta
        ratio = m / theta
        height = (1 - (ratio - 1).abs()).clamp(min=0).detach()
        s = (m >= theta).to(m.dtype) + height * (ratio - ratio.detach())
        potential = m - theta * s
        train.append(s)
    return torch.stack(train)


def with_gradients(train: Callable[..., torch.Tensor], steps: int, held: bool) -> list[torch.Tensor | None]:
    """What a run of random currents fires, and the gradients of a weighted sum of it, in float64."""
    generator, shape = torch.Generator().manual_seed(3), (3, 2, 4, 4)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    given = [
        draw(1 if held else steps, *shape),
        draw(*shape[1:]),
        1 + 0.2 * draw(shape[1], 1, 1),
        0.3 * draw(steps, 1, shape[1], 1, 1),
    ]
    weight = draw(steps, *shape)
    tensors = [tensor.requires_grad_(True) for tensor in given]
    spikes = train(*tensors)
    (spikes * weight).sum().backward()
    return [spikes.detach(), *(tensor.grad for tensor in tensors)]


def fast(currents: torch.Tensor, *parameters: torch.Tensor, compiled: bool = False) -> torch.Tensor:
    return differentiable_train(currents, 5, *parameters, compiled=compiled)


def slow(currents: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
    return slow_train(currents.expand(5, *currents.shape[1:]), *parameters)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=NEEDS_COMPILER)])
def test_the_gradients_are_those_of_the_steps_one_by_one(held: bool, compiled: bool) -> None:
    actual, expected = with_gradients(partial(fast, compiled=compiled), 5, held), with_gradients(slow, 5, held)
    for fast_one, slow_one in zip(actual, expected, strict=True):
        assert fast_one is not None and slow_one is not None and fast_one.shape == slow_one.shape
        torch.testing.assert_close(fast_one, slow_one, rtol=1e-12, atol=1e-12)
    assert expected[1] is not None and expected[1].abs().max() > 0


def test_forward_is_the_contract() -> None:
    spec = layer((3, 4, 4), theta=0.75)
    beta = np.array([[0.1, -0.2, 0.3]] * 6, np.float32)
    neuron = neuron_tensors(NeuronSpec(spec.threshold, spec.v_init, bias=beta), torch.device("cpu"), torch.float32)
    currents = torch.randn(6, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    bias = torch.from_numpy(beta).reshape(6, 1, 3, 1, 1)
    fast = differentiable_train(currents, 6, neuron.v_init, neuron.threshold, bias)
    assert torch.equal(fast, integrate_and_fire(currents, 6, neuron).spikes)


def test_backward_through_two_steps_by_hand() -> None:
    """theta = 1, v(0) = 0.5, I = 0.25, 0.5: m(1) = 0.75 does not fire, m(2) = 1.25 does.

    With h(m) the triangle: ds1/dv0 = h(0.75) = 0.75; dv1/dv0 = 1 - 0.75 = 0.25; ds2/dv0 = h(1.25) 0.25 = 0.1875.
    """
    v_init = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    currents = torch.tensor([[[0.25]], [[0.5]]], dtype=torch.float64)
    train = differentiable_train(currents, 2, v_init, torch.tensor(1.0, dtype=torch.float64))
    assert train.flatten().tolist() == [0.0, 1.0]
    first, second = (torch.autograd.grad(s.sum(), v_init, retain_graph=True)[0].item() for s in train)
    assert (first, second) == (0.75, 0.1875)


@pytest.mark.parametrize("steps", [1, 2])
def test_it_comes_closer_to_the_artificial_network_than_mean_matching(steps: int) -> None:
    network = two_layers(seed=8)
    matched = calibrate(network, IMAGES, MeanMatching(rounds=3), steps)
    tuned = calibrate(network, IMAGES, SHORT, steps)
    assert divergence(tuned, network, steps, IMAGES) < divergence(matched, network, steps, IMAGES)
    assert (tuned.method, tuned.num_timesteps, tuned.rho) == ("static", steps, 0)
    for name in network.layers:
        assert np.array_equal(tuned.neurons[name].threshold, network.neurons[name].threshold)
        assert tuned.neurons[name].v_init.shape == network.neurons[name].shape
    assert tuned.graph is network.graph, "weights stay as they are"


def test_thresholds_and_biases_help_further_and_survive_the_file(tmp_path: Path) -> None:
    network, steps = two_layers(seed=8), 2
    plain = calibrate(network, MANY, SHORT, steps)
    more = calibrate(network, MANY, replace(SHORT, tune=("potential", "threshold", "bias")), steps)
    assert divergence(more, network, steps, MANY) < divergence(plain, network, steps, MANY)
    for name in network.layers:
        spec = more.neurons[name]
        assert spec.bias is not None and spec.bias.shape == (steps, spec.shape[0])
        assert len(np.unique(spec.threshold.reshape(spec.shape[0], -1), axis=1)[0]) == 1, "one for each channel"
        assert not np.array_equal(spec.threshold, network.neurons[name].threshold)
    bundle = export(more, tmp_path / "bundle", golden=IMAGES[:8])
    result = verify(bundle, ["onnxruntime"])
    assert result.passed and result["onnxruntime"].local_violations == 0
    for name in network.layers:
        assert np.array_equal(bundle.network.neurons[name].threshold, more.neurons[name].threshold)


def test_it_keeps_mean_matching_where_the_gradient_does_not_help() -> None:
    network = two_layers(seed=8)
    tuned_on = IMAGES[: len(IMAGES) - len(IMAGES) // 5]
    matched = calibrate(network, tuned_on, MeanMatching(rounds=3), 3)
    led_astray = calibrate(network, IMAGES, Static(updates=3, samples=16, rounds=3, learning_rate=30.0), 3)
    for name in network.layers:
        assert np.array_equal(led_astray.neurons[name].v_init, matched.neurons[name].v_init)


def test_the_same_seed_gives_the_same_potentials() -> None:
    network = two_layers(seed=4)
    first, second = (calibrate(network, IMAGES, SHORT, 2) for _ in range(2))
    other = calibrate(network, IMAGES, replace(SHORT, seed=1), 2)
    assert all(np.array_equal(first.neurons[n].v_init, second.neurons[n].v_init) for n in network.layers)
    assert any(not np.array_equal(first.neurons[n].v_init, other.neurons[n].v_init) for n in network.layers)


class Pairs(Dataset[object]):
    """Items as a torch data set gives them: an image and its label."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> object:
        return torch.from_numpy(IMAGES[index]), 0


def test_a_torch_data_set_serves_as_well_as_an_array() -> None:
    network = two_layers(seed=8)
    from_array, from_pairs = (calibrate(network, given, SHORT, 2, batch_size=7) for given in (IMAGES, Pairs()))
    assert all(np.array_equal(from_array.neurons[n].v_init, from_pairs.neurons[n].v_init) for n in network.layers)


def test_refusals() -> None:
    network = two_layers(seed=1)
    spec = network.neurons["second"]
    hard = network.with_neurons(
        {"second": NeuronSpec(spec.threshold, spec.v_init, reset="value", v_reset=np.zeros(6, np.float32))}
    )
    with pytest.raises(InputError, match="'second' is reset to a value"):
        calibrate(hard, IMAGES, SHORT, 1)
    silent = network.with_neurons({"second": replace(spec, silent=np.ones(spec.shape, np.bool_))})
    with pytest.raises(InputError, match="'second' has silent ones"):
        calibrate(silent, IMAGES, SHORT, 1)
    for change in ({"flip": True}, {"shift": 1}, {"both_sides": True}):
        with pytest.raises(InputError, match=r"flip, shift and both_sides are for images .* takes \(1,\)"):
            calibrate(one_neuron(1.0), np.ones((8, 1), np.float32), replace(SHORT, **change), 1)
    for wrong in ((), ("delay",), ("bias", "bias")):
        with pytest.raises(InputError, match="some of potential, threshold, bias, weight"):
            Static(tune=wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="updates >= 1"):
        Static(updates=0)
    with pytest.raises(InputError, match="There are no images"):
        calibrate(network, torch.utils.data.TensorDataset(torch.zeros(0, 2, 5, 5)), "static", 1)


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> object:
        raise RuntimeError("Failed to find C++ compiler.")

    monkeypatch.setattr("calibration.tuning.surrogate._compiled", lambda: (without, without, without))
    with pytest.raises(UnavailableError, match=r"cannot compile for cpu here: Failed to find C\+\+ compiler"):
        calibrate(two_layers(seed=8), IMAGES, replace(SHORT, compiled=True), 2, device="cpu")
