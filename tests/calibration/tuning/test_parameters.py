from __future__ import annotations

from dataclasses import replace

import nir
import numpy as np
import pytest
import torch
from random_networks import images, residual
from small_networks import two_layers
from torch import nn
from torch.nn import functional

from calibration import Static, calibrate
from calibration.data import calibration_data
from calibration.tuning.parameters import Tuned, Tuning
from cos_export.capturing import capture
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork
from cos_export.qcfs import QCFS
from cos_export.simulation import simulate
from cos_export.simulation.program import Program

ALL: tuple[Tuned, ...] = ("potential", "threshold", "bias", "weight")
CPU = torch.device("cpu")


def synapses(network: SpikingNetwork) -> dict[str, np.ndarray]:
    return {name: node.weight for name, node in network.graph.nodes.items() if hasattr(node, "weight")}


@pytest.mark.parametrize("network", [two_layers(3), residual(np.random.default_rng(5))], ids=["sequential", "residual"])
def test_parameters_of_zero_change_nothing(network: SpikingNetwork) -> None:
    applied = Tuning(Program(network, CPU), ALL, 3).applied()
    for name, weight in synapses(network).items():
        np.testing.assert_array_equal(synapses(applied)[name], weight)
    for name, spec in network.neurons.items():
        np.testing.assert_array_equal(applied.neurons[name].v_init, spec.v_init)
        np.testing.assert_array_equal(applied.neurons[name].threshold, spec.threshold)


@pytest.mark.parametrize("network", [two_layers(3), residual(np.random.default_rng(5))], ids=["sequential", "residual"])
def test_what_is_returned_is_what_was_tuned(network: SpikingNetwork) -> None:
    """The network that comes of the parameters fires and has the outputs that the tuning itself does."""
    steps, given, generator = 3, images(network, 4), torch.Generator().manual_seed(0)
    tuning = Tuning(Program(network, CPU), ALL, steps)
    for parameter in tuning.parameters.values():
        parameter.values.data.copy_(0.1 * torch.randn(parameter.values.shape, generator=generator))
    with torch.no_grad():
        actual = tuning.program().propagate(torch.from_numpy(given), tuning.train)
    applied = tuning.applied()
    trace = simulate(applied, given, steps, device="cpu")
    np.testing.assert_allclose(trace.logits[-1], actual.mean(0), rtol=1e-5, atol=1e-5)
    assert any((synapses(applied)[name] != weight).any() for name, weight in synapses(network).items())
    assert all((applied.neurons[name].v_init != network.neurons[name].v_init).all() for name in network.layers)


def test_an_identity_path_stays_one_number() -> None:
    network = two_layers(3)
    identity = nir.Conv2d((5, 5), 0.75 * np.eye(3, dtype=np.float32)[:, :, None, None], 1, 0, 1, 1, np.zeros(3))
    nodes = {**network.graph.nodes, "carried": identity}
    edges = [edge for edge in network.graph.edges if edge != ("conv", "first")]
    graph = nir.NIRGraph(nodes, [*edges, ("conv", "carried"), ("carried", "first")])
    tuning = Tuning(Program(SpikingNetwork(graph, network.neurons), CPU), ("weight",), 2)
    tuned = {key.split("/")[0] for key in tuning.parameters}
    assert tuned == {"conv", "dense", "head"}


def test_what_compares_entries_for_a_max_pooling_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), QCFS(4), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(8, 3)).eval()
    tuning = Tuning(Program(capture(model, torch.zeros(1, 1, 7, 7)), CPU), ("weight",), 2)
    assert {key.split("/")[0] for key in tuning.parameters} == {"layer_0", "layer_4"}


def test_the_gradient_of_a_weight_is_that_of_the_plain_product() -> None:
    """Behind the last layer there is no surrogate: the logits are the head's weights times the spikes' mean."""
    network, steps = two_layers(3), 2
    given = torch.from_numpy(images(network, 5))
    tuning = Tuning(Program(network, CPU), ("weight",), steps)
    with torch.enable_grad():
        logits = tuning.program().propagate(given, tuning.train).mean(0)
        functional.cross_entropy(logits, torch.zeros(5, dtype=torch.long)).backward()
    rates = simulate(network, given, steps, device="cpu").spikes["second"].mean(0)
    chosen = np.eye(4)[np.zeros(5, int)]
    by_hand = (logits.detach().softmax(1).numpy() - chosen).T @ rates / 5
    unit = np.sqrt(np.mean(np.square(network.graph.nodes["head"].weight)))
    actual = tuning.parameters["head/weight"].values.grad
    assert actual is not None and np.abs(by_hand).max() > 0
    np.testing.assert_allclose(actual.numpy(), unit * by_hand, rtol=1e-5, atol=1e-6)


def test_weights_help_further_and_answer_to_the_artificial_network_before() -> None:
    network, steps = two_layers(8), 2
    given = np.random.default_rng(0).normal(size=(200, 2, 5, 5)).astype(np.float32)
    plain = Static(tune=("bias",), updates=80, samples=16, rounds=3, learning_rate=0.01, precision="float32")
    more = replace(plain, tune=("bias", "weight"))
    before = {name: weight.copy() for name, weight in synapses(network).items()}
    losses = []
    for method in (plain, more):
        tuned = calibrate(network, given, method, steps, device="cpu")
        expected = Program(network, CPU).propagate(
            torch.from_numpy(given), lambda n, s, c: (c / s.threshold).clamp(0, 1)
        )
        actual = torch.from_numpy(simulate(tuned, given, steps, device="cpu").logits[-1])
        losses.append(
            functional.kl_div(actual.log_softmax(1), expected[0].log_softmax(1), reduction="sum", log_target=True)
        )
    assert losses[1] < losses[0]
    for name, weight in synapses(network).items():
        np.testing.assert_array_equal(weight, before[name], "the network that was given stays as it is")


def test_weights_of_integers_are_refused() -> None:
    from integer_networks import in_fixed_point

    with pytest.raises(InputError, match="before a network is quantised"):
        calibrate(in_fixed_point(two_layers(0), 0), np.ones((8, 2, 5, 5), np.float32), Static(tune=("weight",)), 1)


def test_images_are_moved_anew_in_each_pass_and_alike_in_each_run() -> None:
    network = two_layers(0)
    marked = np.zeros((6, 2, 5, 5), np.float32)
    marked[:, 0, 2, 1] = np.arange(1, 7)
    data = calibration_data(network, marked, 4)

    def first(count: int) -> list[torch.Tensor]:
        batches = data.shuffled(3, 7, flip=True, shift=1)
        return [next(batches).images for _ in range(count)]

    once, again = first(8), first(8)
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))
    from_there = next(data.shuffled(3, 7, first=5, flip=True, shift=1)).images
    assert torch.equal(from_there, once[5]), "an interrupted calibration sees what it would have seen"
    places = {tuple(place[1:]) for batch in once for place in torch.nonzero(batch).tolist()}
    # One dot at (2, 1), mirrored at (2, 3), each moved by up to one pixel.
    assert places <= {(0, row, column) for row in (1, 2, 3) for column in (0, 1, 2, 3, 4)} and len(places) > 6
    for one, two in zip(once[::2], once[1::2], strict=True):
        shown = torch.cat([one, two])
        assert sorted(shown.flatten(1).sum(1).tolist()) == [1, 2, 3, 4, 5, 6], "each image once in each pass"


def test_few_images_split_into_those_tuned_on_and_those_held_out() -> None:
    network = two_layers(0)
    pictures = np.random.default_rng(0).normal(size=(10, 2, 5, 5)).astype(np.float32)
    for given in (pictures, torch.utils.data.TensorDataset(torch.from_numpy(pictures))):
        fitted, held_out = calibration_data(network, given, 4).split(8)
        assert (len(fitted), len(held_out)) == (8, 2)
        np.testing.assert_array_equal(torch.cat(list(fitted.ordered())), pictures[:8])
        np.testing.assert_array_equal(torch.cat(list(held_out.ordered())), pictures[8:])
