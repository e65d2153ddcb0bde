"""Every figure of `costs`, beside a machine that counts events as they happen, on random wirings of all kinds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cost_machine import SYNAPSES, Machine
from eight_bit_networks import in_integers, with_node
from random_graphs import random_graph, sparse_frames, sparse_images

import cos_export as ce
from cos_export.network import SpikingNetwork
from cos_export.simulation import PerSampleCalibration

Case = tuple[Any, Any, int, PerSampleCalibration | None]
KINDS = ("synchronous", "layerwise", "held", "frames", "cos", "srp", "int8")


def case(kind: str, seed: int) -> Case:
    """A network, what it takes, T, and a per-sample method."""
    network = random_graph(seed, silenced=kind != "cos")
    steps, images = (7, 2, 3, 4, 1)[seed], sparse_images(network, 3, seed)
    if kind == "layerwise":
        return replace(network, schedule="layerwise"), images, steps if seed else 32, None
    if kind == "held":
        return replace(network, input_steps=2), images, steps, None
    if kind == "frames":
        return network, sparse_frames(network, 3, steps + 1, seed), steps, None
    if kind == "int8":
        return with_small_weights(in_integers(network, seed)), images, steps, None
    if kind == "srp":
        return network, images, steps, ce.SRP((1, 4)[seed % 2])
    return network, images, steps, ce.COS(*((1, 1), (5, 1), (3, 2))[seed % 3]) if kind == "cos" else None


def with_small_weights(network: SpikingNetwork) -> SpikingNetwork:
    """Weights of -3..3, so that no potential leaves 24 bits however many synapses follow each other."""
    for name, node in network.graph.nodes.items():
        for field in ("weight", "scale"):
            if getattr(node, field, None) is not None:
                network = with_node(network, name, **{field: getattr(node, field).clip(-3, 3)})
    return network


def check_operations(machine: Machine, images: Any, steps: int, method: Any, actual: ce.Costs) -> None:
    how = () if method is None else (method.name, method.rho, getattr(method, "iterations", 1))
    expected = machine.count(images, steps, *how)
    trains = expected.pop("trains")
    spikes = ce.simulate(machine.network, images, steps, calibration=method).spikes
    for name, train in trains.items():
        assert np.array_equal(spikes[name].reshape(train.shape), train), name
    done = actual.operations
    by_node = {name: count for name, count in done.by_node.items() if count}
    assert by_node == pytest.approx(expected.pop("by_node"))
    assert {name: getattr(done, name) for name in expected} == pytest.approx(expected)


def check_artificial(machine: Machine, images: Any, steps: int, method: Any, actual: ce.Costs) -> None:
    spikes = ce.simulate(machine.network, images, steps, calibration=method).spikes
    trains = {name: train.reshape(*train.shape[:2], -1) for name, train in spikes.items()}
    macs, effective = machine.artificial(images, trains, steps)
    bits = math.ceil(math.log2(steps + 1))
    width = {name: {"constant": 8, "spikes": bits, "graded": 32}[machine.arriving[name]] for name in macs}
    done = actual.artificial
    assert done.activation_bits == bits and done.macs == sum(macs.values())
    assert done.bit_operations == sum(8 * width[name] * count for name, count in macs.items())
    weight = 1 if machine.network.numerics == "int8" else 4
    reads = sum((weight + width[name] / 8) * count for name, count in macs.items())
    assert done.memory_traffic == pytest.approx(reads + machine.network.neuron_count * bits / 8)
    # Thirds and sevenths are rounded, and what they cancel to is 0 or nearly so.
    if steps in (1, 2, 4, 32):
        assert done.effective_macs == pytest.approx(sum(effective.values()))
        active = sum(8 * width[name] * count for name, count in effective.items())
        assert done.effective_bit_operations == pytest.approx(active)


def check_energy_and_bytes(machine: Machine, steps: int, method: Any, actual: ce.Costs) -> None:
    network, done = machine.network, actual.operations
    additions = done.effective_acs + done.pooling_additions + done.bias_additions
    assert actual.energy.picojoules == pytest.approx(4.6 * done.effective_macs + 0.9 * additions)
    assert actual.energy.picojoules_every_step == pytest.approx(4.6 * done.effective_macs_every_step + 0.9 * additions)
    weight = 1 if network.numerics == "int8" else 4
    kinds = machine.arriving
    values = sum({"constant": weight, "spikes": 0, "graded": 4}[kinds[name]] * n for name, n in done.by_node.items())
    traffic = (weight + 8) * done.synaptic_operations + values
    traffic += 8 * (done.neuron_updates + done.pooling_additions) + 12 * done.bias_additions
    assert actual.energy.memory_traffic == pytest.approx(traffic)
    bits = {"constant": 64, "spikes": 8, "graded": 256}
    spiking = sum(bits[kinds[name]] * count for name, count in done.by_node.items())
    assert actual.artificial.spiking_bit_operations == pytest.approx(spiking)
    nodes = [machine.nodes[name] for name in machine.order if isinstance(machine.nodes[name], SYNAPSES)]
    weights = [np.asarray(node.scale if hasattr(node, "scale") else node.weight) for node in nodes]
    count = sum(array.size for array in weights)
    biases = sum(node.bias.size for node in nodes if hasattr(node, "bias"))
    biases += sum(spec.bias.size for spec in network.neurons.values() if spec.bias is not None)
    layers = [network.shapes[name] for name in machine.layers]
    neurons = sum(math.prod(shape) for shape in layers)
    about = actual.to_dict()["footprint"]
    assert (about["weights_float32"], about["weights_int8"], about["biases"]) == (4 * count, count, 4 * biases)
    assert about["parameters"] == weight * count + 4 * biases + 8 * neurons
    state = 4 * (neurons + 3)
    if network.schedule == "layerwise":
        state += math.ceil(math.ceil(math.log2(steps + 1)) * neurons / 8)
    if method is not None:
        replayed = 4 * neurons + math.ceil(max(steps, method.rho) * neurons / 8)
        state += replayed if method.name == "cos" else math.ceil(neurons / 8)
    assert about["state"] == state
    assert about["connection_sparsity"] == pytest.approx(sum(int((array == 0).sum()) for array in weights) / count)


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_is_what_a_machine_counts(kind: str) -> None:
    for seed in range(5):
        network, images, steps, method = case(kind, seed)
        machine = Machine(network)
        actual = ce.costs(network, images, steps, method, device="cpu", batch_size=2)
        check_energy_and_bytes(machine, steps, method, actual)
        check_artificial(machine, images, steps, method, actual)
        # Of integers that are rounded from the image the spikes are tested elsewhere.
        if kind != "int8":
            check_operations(machine, images, steps, method, actual)
