"""The walk through the layers: what is summed in place, and what a rule may overwrite."""

from __future__ import annotations

import nir
import numpy as np
import pytest
import torch
from small_networks import dyadic, layer
from torch import Tensor

from cos_export.network import SpikingNetwork
from cos_export.simulation.neuron import NeuronTensors, integrate_and_fire
from cos_export.simulation.program import Program

SHAPE, STEPS = (2, 4, 4), 3
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(-16, 17, (5, *SHAPE)).astype(np.float32) / 16)


def convolution(rng: np.random.Generator, size: int = 3) -> nir.Conv2d:
    return nir.Conv2d((4, 4), dyadic(rng, (2, 2, size, size)), 1, size // 2, 1, 1, dyadic(rng, (2,), 4))


def multiple(factor: float) -> nir.Conv2d:
    weight = factor * np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1)
    return nir.Conv2d((4, 4), weight, 1, 0, 1, 1, np.zeros(2, np.float32))


def tangled() -> SpikingNetwork:
    """Values that are read twice, sums of one step and of all, views, and a layer on a layer and on the input."""
    rng = np.random.default_rng(1)
    specs = {name: layer(SHAPE, 0.75) for name in ("on_input", "first", "on_layer", "sum", "last")}
    specs |= {"flat_layer": layer((32,), 0.75), "on_view": layer((32,), 1.5)}
    edges = [
        ("input", "on_input"),
        ("input", "conv"),
        ("conv", "first"),
        # A layer on a layer, whose spikes another synapse reads later.
        ("first", "on_layer"),
        ("first", "scaled"),
        ("on_layer", "deep"),
        ("input", "skip"),
        ("on_input", "beside"),
        # One step first, then all; and what is not read by the sum alone.
        ("skip", "sum"),
        ("deep", "sum"),
        ("scaled", "sum"),
        ("beside", "sum"),
        ("deep", "last"),
        ("sum", "turned"),
        ("turned", "last"),
        # A view of what a layer has sent: to flatten what is flat moves nothing.
        ("first", "flat_first"),
        ("flat_first", "flat_layer"),
        ("flat_layer", "view"),
        ("view", "on_view"),
        ("on_view", "head"),
        ("deep", "flat"),
        ("last", "flat_last"),
        ("flat", "head"),
        ("flat_last", "head"),
        ("head", "output"),
    ]
    nodes = {
        "input": nir.Input({"input": np.array(SHAPE)}),
        **{name: convolution(rng) for name in ("conv", "deep", "skip")},
        **{name: convolution(rng, 1) for name in ("beside", "turned")},
        "scaled": multiple(0.5),
        **{name: nir.IF(r=np.ones(spec.shape, np.float32), v_threshold=spec.threshold) for name, spec in specs.items()},
        **{name: nir.Flatten({"input": np.array(SHAPE)}, -3, -1) for name in ("flat", "flat_first", "flat_last")},
        "view": nir.Flatten({"input": np.array([32])}, -1, -1),
        "head": nir.Linear(dyadic(rng, (3, 32))),
        "output": nir.Output({"output": np.array([3])}),
    }
    return SpikingNetwork(nir.NIRGraph(nodes, edges), specs)


@pytest.mark.parametrize("destroy", [False, True])
def test_a_rule_owns_its_currents(destroy: bool) -> None:
    """Whatever it writes there reaches no other layer, no train that was sent and no image."""
    network, images = tangled(), IMAGES.contiguous(memory_format=torch.channels_last)
    before, expected, actual, held = images.clone(), {}, {}, {}

    def keeping(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        expected[name] = integrate_and_fire(currents, STEPS, neuron).spikes
        return expected[name]

    def overwriting(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        given = currents.clone() if destroy else currents
        held[name] = integrate_and_fire(given, STEPS, neuron, overwrite=True).spikes
        actual[name] = held[name].clone()
        if destroy:
            currents.fill_(torch.nan)
        return held[name]

    readout = Program(network).propagate(images, keeping)
    assert torch.equal(Program(network).propagate(images, overwriting), readout)
    assert torch.equal(images, before)
    for name, spikes in expected.items():
        assert 0 < spikes.mean() < 1
        assert torch.equal(actual[name], spikes) and torch.equal(held[name], spikes)


def test_the_walk_is_the_sum_of_what_arrives() -> None:
    """`currents` sums anew what `propagate` sums in place."""
    network, arriving, outputs = tangled(), {}, {"input": IMAGES.unsqueeze(0)}

    def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        arriving[name] = currents.clone()
        outputs[name] = integrate_and_fire(currents, STEPS, neuron).spikes
        return outputs[name]

    program = Program(network)
    program.propagate(IMAGES, rule)
    for name in network.layers:
        assert torch.equal(program.currents(name, outputs.__getitem__), arriving[name])


def test_one_walk_finds_what_arrives_and_computes_no_synapse_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    network, outputs, computed = tangled(), {"input": IMAGES.unsqueeze(0)}, []
    program = Program(network)
    program.propagate(IMAGES, lambda name, neuron, currents: outputs.setdefault(name, currents > 0).float())
    trains = {name: value.float() for name, value in outputs.items()}
    alone = {name: program.currents(name, trains.__getitem__) for name in network.order if name != network.input_name}
    through = Program._through

    def counted(self: Program, name: str, values: Tensor) -> Tensor:
        computed.append(name)
        return through(self, name, values)

    monkeypatch.setattr(Program, "_through", counted)
    actual = dict(program.arrivals(alone, trains.__getitem__))
    assert list(actual) == [name for name in network.order if name in alone]
    assert all(torch.equal(actual[name], value) for name, value in alone.items())
    assert len(computed) == len(set(computed))
    # Of one node, only what it needs is computed.
    computed.clear()
    last = network.layers[-1]
    [(name, value)] = program.arrivals([last], trains.__getitem__)
    assert name == last and torch.equal(value, alone[last])
    assert set(computed) <= set(network.predecessors[last]) | {network.input_name} | {
        source for feeding in network.predecessors[last] for source in network.predecessors[feeding]
    }


def test_spikes_take_the_place_of_currents_on_request() -> None:
    network = tangled()
    neuron = Program(network).neurons["first"]
    currents = torch.randn(STEPS, 5, *SHAPE, generator=torch.Generator().manual_seed(0))
    kept, constant = currents.clone(), currents[:1].clone()
    expected = integrate_and_fire(currents, STEPS, neuron)
    assert torch.equal(currents, kept)
    actual = integrate_and_fire(currents, STEPS, neuron, overwrite=True)
    assert actual.spikes.data_ptr() == currents.data_ptr()
    assert torch.equal(actual.spikes, expected.spikes) and torch.equal(actual.residual, expected.residual)
    # One current for all steps has no room for all spikes.
    integrate_and_fire(constant, STEPS, neuron, overwrite=True)
    assert torch.equal(constant, kept[:1])
