"""Every type of node that NIR has, in every pass that networks go through: handled, or refused by name."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import random_networks as build
import torch

from calibration.tuning.parameters import Tuning
from cos_export.c_code import c_source
from cos_export.c_code.plan import plan_of
from cos_export.errors import NetworkError
from cos_export.network import SpikingNetwork
from cos_export.network.fields import check_fields
from cos_export.network.node_facts import REFUSED, facts, known_types
from cos_export.network.reparametrisation import with_current_bias, with_thresholds
from cos_export.nir_file import read_nir, write_nir
from cos_export.onnx_file import write_onnx, write_step
from cos_export.parity.local import check_local
from cos_export.quantisation import quantise
from cos_export.quantisation.ranges import check_ranges
from cos_export.simulation import simulate
from cos_export.simulation.program import Program
from targets.lava.lowering import lower

TYPES = {
    name: kind
    for name, kind in inspect.getmembers(nir, inspect.isclass)
    if issubclass(kind, nir.NIRNode) and kind is not nir.NIRNode
}


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


EXAMPLES: dict[str, tuple[tuple[int, ...], list[Any]]] = {
    "Affine": ((6,), [build.IF, build.affine(rng(), 6, 5), build.IF]),
    "AvgPool2d": (
        (2, 4, 4),
        [build.conv2d(rng(), 2, 4), build.IF, build.pool(nir.AvgPool2d), build.conv2d(rng(), 4, 4), build.IF],
    ),
    "Conv1d": ((2, 6), [build.IF, build.conv1d(rng(), 2, 4, padding=1), build.IF]),
    "Conv2d": ((2, 4, 4), [build.IF, build.conv2d(rng(), 2, 4), build.IF]),
    "Flatten": ((2, 3, 3), [build.IF, build.flatten(), build.affine(rng(), 18, 5), build.IF]),
    "IF": ((6,), [build.affine(rng(), 6, 5), build.IF]),
    "Input": ((6,), [build.affine(rng(), 6, 5), build.IF]),
    "Linear": ((6,), [build.IF, nir.Linear(build.dyadic(rng(), 5, 6)), build.IF]),
    "Output": ((6,), [build.affine(rng(), 6, 5), build.IF]),
    "Scale": ((6,), [build.IF, nir.Scale(build.dyadic(rng(), 6, low=1)), build.IF]),
    "SumPool2d": ((2, 4, 4), [build.IF, build.pool(nir.SumPool2d), build.conv2d(rng(), 2, 4), build.IF]),
}
"""For each known type the shape of an input, and layers in which it stands between neurons where it can."""


def example(name: str) -> tuple[SpikingNetwork, Any]:
    shape, layers = EXAMPLES[name]
    network = build.sequential(rng(), shape, layers)
    assert any(type(node).__name__ == name for node in network.graph.nodes.values())
    return network, build.images(network, 3)


def test_every_type_is_described_or_refused_with_a_reason() -> None:
    assert set(TYPES) == set(known_types()) | set(REFUSED)
    assert not set(known_types()) & set(REFUSED)
    assert set(EXAMPLES) == set(known_types())


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_the_fields_of_every_type_that_runs_are_checked(name: str) -> None:
    assert check_fields.dispatch(TYPES[name]) is not check_fields.dispatch(object)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_refused_is_refused_by_name(name: str) -> None:
    node = object.__new__(TYPES[name])
    with pytest.raises(NetworkError, match=f"type {name} cannot be run: {REFUSED[name][:20]}"):
        facts(node)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_every_pass_takes_it(name: str, tmp_path: Path) -> None:
    network, images = example(name)
    trace = simulate(network, images, 3, device="cpu")
    write_onnx(network, tmp_path / "model.onnx", 3)  # which runs it against the reference
    write_step(network, tmp_path / "model_step.onnx", 3, images, trace)  # likewise
    write_nir(network, tmp_path / "model.nir")  # which reads it back, field by field
    assert read_nir(tmp_path / "model.nir").layers == network.layers
    assert check_local(network, images, trace).violations == 0
    lowered = lower(network, images, 3)
    assert set(lowered) == set(network.graph.nodes)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_in_integers_every_weight_is_one(name: str, tmp_path: Path) -> None:
    network, images = example(name)
    whole = quantise(network, images, device="cpu")
    check_ranges(whole, 3)
    write_step(whole, tmp_path / "model_step.onnx", 3, images, simulate(whole, images, 3, device="cpu"))
    for node in whole.graph.nodes.values():
        field = facts(node).weights
        if field is not None:
            weights = np.asarray(getattr(node, field))
            assert np.array_equal(weights, np.rint(weights)) and np.abs(weights).max() <= 128


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_in_integers_it_is_written_as_c_or_refused_with_its_name(name: str, schedule: Any) -> None:
    network, images = example(name)
    if name == "AvgPool2d":  # quantising makes sums of it
        coding = quantise(network, images, device="cpu").quantisation
        with pytest.raises(NetworkError, match="Node 'avgpool2d2': a node of type AvgPool2d"):
            plan_of(replace(network, quantisation=coding))
    whole = replace(quantise(network, images, device="cpu"), schedule=schedule)
    source = c_source(whole, 3, "network")
    for layer in whole.layers:
        assert f"/* Layer {layer}. */" in source.code


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_what_has_weights_is_tuned(name: str) -> None:
    network, images = example(name)
    tuning = Tuning(Program(network), ("weight",), 3)
    for parameter in tuning.parameters.values():
        parameter.values.data.add_(0.25)
    tuned = tuning.applied()
    program = tuning.program()
    for key, node in network.graph.nodes.items():
        field = facts(node).weights
        if field is not None:
            assert not np.array_equal(getattr(tuned.graph.nodes[key], field), getattr(node, field)), key
    with torch.no_grad():
        sent = program.propagate(torch.from_numpy(images), lambda layer, neuron, currents: currents.clamp(0, 1))
        again = Program(tuned).propagate(torch.from_numpy(images), lambda layer, neuron, currents: currents.clamp(0, 1))
    torch.testing.assert_close(sent, again)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_thresholds_and_biases_pass_through_it_or_are_refused_with_its_name(name: str) -> None:
    network, _ = example(name)
    first, last = network.layers[0], network.layers[-1]
    doubled = (
        with_thresholds(network, {first: 2 * np.asarray(network.neurons[first].threshold).reshape(-1)[0]})
        if (np.ptp(network.neurons[first].threshold) == 0)
        else network
    )
    assert doubled.layers == network.layers
    try:
        with_current_bias(network, {last: 0.5})
    except NetworkError as error:
        source = network.predecessors[last][0]
        assert repr(source) in str(error) and type(network.graph.nodes[source]).__name__ in str(error)
