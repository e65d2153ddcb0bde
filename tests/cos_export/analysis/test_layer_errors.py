"""The split of each layer's error, beside a computation in float64 that shares no code, and with planted faults."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import nir
import numpy as np
import pytest
from cost_machine import Machine
from narrowing import present
from random_graphs import random_graph, sparse_images
from random_networks import images, random_network
from small_networks import two_layers
from split_reference import Splitting, split
from split_reference import divergence as kl_of
from two_layer_reference import Doubles, dyadic_images, fired, first_currents, held, second_currents

from calibration import COS, METHODS
from cos_export.analysis import layer_errors
from cos_export.datasets import Dataset
from cos_export.errors import InputError, NetworkError
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.simulation import ann_logits, simulate
from cos_export.terminal.analysis_table import analysis_lines

LAYERS = ("first", "second")


class Slow:
    """Every network that is compared, on `two_layers`, in float64 and one neuron at a time."""

    def __init__(self, network: SpikingNetwork, pictures: Any, steps: int) -> None:
        self.network, self.steps = network, steps
        self.theta = {name: float(network.neurons[name].threshold.flat[0]) for name in LAYERS}
        self.image_currents = first_currents(network, pictures)

    def relu(self, name: str, z: Doubles) -> Doubles:
        return np.maximum(z / self.theta[name], 0)

    def clip(self, name: str, z: Doubles) -> Doubles:
        return np.clip(z / self.theta[name], 0, 1)

    def qcfs(self, name: str, z: Doubles) -> Doubles:
        t = self.steps
        return np.clip(np.floor(z * t / self.theta[name] + 0.5) / t, 0, 1)

    def spikes(self, name: str, train: Doubles) -> Doubles:
        """What a layer sends of a current (steps, samples, ...): its spikes, or under the other schedule its rate."""
        spec = self.network.neurons[name]
        if self.network.schedule == "synchronous":
            return fired(train, self.theta[name], spec.v_init)
        # All of it at once, and then nothing for long enough: one spike a step.
        late = np.concatenate([train.sum(0)[None], np.zeros((self.steps - 1, *train.shape[1:]))])
        rate = fired(late, self.theta[name], spec.v_init).mean(0)
        return held(rate, self.steps)

    def logits(self, rates: Doubles) -> Doubles:
        head = self.network.graph.nodes["head"]
        return np.asarray(rates @ head.weight.T.astype(np.float64) + head.bias)

    def through(self, rules: dict[str, Any]) -> tuple[dict[str, Doubles], Doubles]:
        """Activations by layer, and logits, with a rule over currents for each layer."""
        first = rules["first"]("first", self.image_currents)
        second = rules["second"]("second", second_currents(self.network, first))
        return {"first": first, "second": second}, self.logits(second)

    def spiking(self, but: str = "") -> tuple[dict[str, Doubles], dict[str, Doubles], Doubles]:
        """Mean currents, rates and logits, with all layers spiking but one."""
        trains = {"first": held(self.image_currents, self.steps)}
        rates = {}
        for name in LAYERS:
            mean = trains[name].mean(0)
            spikes = held(self.clip(name, mean), self.steps) if name == but else self.spikes(name, trains[name])
            rates[name] = spikes.mean(0)
            if name == "first":
                trains["second"] = second_currents(self.network, spikes)
        return {name: train.mean(0) for name, train in trains.items()}, rates, self.logits(rates["second"])

    def alone(self, name: str, z: Doubles) -> Doubles:
        return np.asarray(self.spikes(name, held(z, self.steps)).mean(0))


def kl(true: Doubles, actual: Doubles) -> float:
    total = 0.0
    for one, other in zip(true, actual, strict=True):
        p, q = (np.exp(x - x.max()) / np.exp(x - x.max()).sum() for x in (one, other))
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(true)


def check_split(split: Any, u: Doubles, c: Doubles, q: Doubles, s: Doubles) -> None:
    # Quotients are rounded to float32.
    close: dict[str, Any] = {"rel": 1e-5, "abs": 1e-9}
    assert split.clipping == pytest.approx(((c - u) ** 2).mean(), **close)
    assert split.levels == pytest.approx(((q - c) ** 2).mean(), **close)
    assert split.timing == pytest.approx(((s - q) ** 2).mean(), **close)
    assert split.total == pytest.approx(((s - u) ** 2).mean(), **close)
    assert split.total == pytest.approx(split.clipping + split.levels + split.timing + split.cross, rel=1e-12)


def spoiled(network: SpikingNetwork, name: str, shift: float) -> SpikingNetwork:
    """The potentials of a layer off by so many thresholds."""
    spec = network.neurons[name]
    v_init = (spec.v_init + shift * spec.threshold).astype(np.float32)
    return network.with_neurons({**network.neurons, name: replace(spec, v_init=v_init)})


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
@pytest.mark.parametrize(("steps", "shift"), [(1, 0.0), (2, 0.25), (4, 0.0), (4, -0.75)])
def test_is_the_computation_in_float64(schedule: Any, steps: int, shift: float) -> None:
    network = replace(spoiled(two_layers(seed=7), "second", shift), schedule=schedule)
    pictures = dyadic_images(7)
    errors = layer_errors(network, pictures, steps, batch_size=3, device="cpu")
    slow = Slow(network, pictures, steps)
    u, u_logits = slow.through(dict.fromkeys(LAYERS, slow.relu))
    c, c_logits = slow.through(dict.fromkeys(LAYERS, slow.clip))
    q, q_logits = slow.through(dict.fromkeys(LAYERS, slow.qcfs))
    z, s, s_logits = slow.spiking()
    answers = {"unclipped": u_logits, "clipped": c_logits, "quantised": q_logits, "spiking": s_logits}
    for kind, logits in answers.items():
        assert errors.networks[kind].divergence == pytest.approx(kl(c_logits, logits), rel=1e-4, abs=1e-7)
    for name in LAYERS:
        check_split(errors.own[name], u[name], c[name], q[name], s[name])
        currents = z[name]
        check_split(
            errors.local[name], slow.relu(name, currents), slow.clip(name, currents), slow.qcfs(name, currents), s[name]
        )
        others = dict.fromkeys(LAYERS, slow.clip)
        expected = {
            "unclipped": slow.through({**others, name: slow.relu})[1],
            "alone": slow.through({**others, name: slow.alone})[1],
            "repaired": slow.spiking(but=name)[2],
        }
        for key, logits in expected.items():
            actual = getattr(errors.divergences[name], key)
            assert actual == pytest.approx(kl(c_logits, logits), rel=1e-4, abs=1e-7), (name, key)
    assert errors.samples == 7 and errors.schedule == schedule
    if schedule == "synchronous" and steps > 1:
        assert errors.local["second"].timing > 0


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
@pytest.mark.parametrize("seed", range(12))
def test_what_spikes_is_what_simulate_fires(seed: int, schedule: Any) -> None:
    """Shortcuts, pools, silenced neurons, biases by step, both comparisons and resets: the two ends are public."""
    network = replace(random_network(seed), schedule=schedule)
    if schedule == "layerwise" and any(spec.reset == "value" for spec in network.neurons.values()):
        pytest.skip("refused")
    pictures = images(network, 8)
    data = Dataset(pictures, np.random.default_rng(seed).integers(0, 3, 8), "dyadic", "none")
    actual = layer_errors(network, data, 4, device="cpu", batch_size=3)
    trace = simulate(network, data, 4, device="cpu")
    limit = network.with_neurons({name: replace(spec, levels=None) for name, spec in network.neurons.items()})
    clipped = ann_logits(limit, data, device="cpu")
    assert actual.networks["spiking"].accuracy == trace.accuracy(present(data.labels))[-1]
    expected = kl(clipped.astype(np.float64), trace.logits[-1].astype(np.float64))
    assert actual.networks["spiking"].divergence == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert actual.trained_clipped == {name for name, spec in network.neurons.items() if spec.levels is not None}


@pytest.mark.parametrize("method", ["half", "opi"])
def test_layer_after_layer_half_has_no_timing_error(method: str) -> None:
    """In any T: with v_init = theta / 2 it is QCFS to the bit, in all layers and with their own inputs."""
    network = METHODS[method]().calibrate(two_layers(seed=2), None)  # type: ignore[attr-defined]
    pictures = np.random.default_rng(1).normal(size=(40, 2, 5, 5)).astype(np.float32)
    for steps in (1, 3, 7):
        actual = layer_errors(replace(network, schedule="layerwise"), pictures, steps, device="cpu")
        for name in LAYERS:
            assert actual.own[name].timing == 0 == actual.local[name].timing
        assert actual.networks["spiking"].divergence == pytest.approx(actual.networks["quantised"].divergence)


def rethresholded(network: SpikingNetwork, name: str, after: str, factor: float) -> SpikingNetwork:
    """One threshold times a factor: the weights that follow carry its amplitude."""
    spec, node = network.neurons[name], network.graph.nodes[after]
    other = NeuronSpec(spec.threshold * np.float32(factor), spec.v_init * np.float32(factor))
    nodes = dict(network.graph.nodes)
    nodes[name] = nir.IF(r=np.ones(spec.shape, np.float32), v_threshold=other.threshold)
    nodes[after] = nir.Affine(node.weight * np.float32(factor), node.bias)
    graph = nir.NIRGraph(nodes, list(network.graph.edges), type_check=False)
    return replace(network, graph=graph, neurons={**network.neurons, name: other})


PICTURES = np.random.default_rng(2).random((60, 2, 5, 5), np.float32)


def unclipping(schedule: Any) -> SpikingNetwork:
    """A network whose thresholds are the largest activations of `PICTURES`: nothing is clipped."""
    network = two_layers(seed=6)
    first = first_currents(network, PICTURES)
    network = rethresholded(network, "first", "dense", first.max())
    second = second_currents(network, np.maximum(first / first.max(), 0))
    network = rethresholded(network, "second", "head", second.max() / float(network.neurons["second"].threshold[0]))
    return replace(network, schedule=schedule)


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
@pytest.mark.parametrize(("layer", "after"), [("first", "dense"), ("second", "head")])
def test_a_threshold_too_small_is_clipping_there(layer: str, after: str, schedule: Any) -> None:
    network = unclipping(schedule)
    good = layer_errors(network, PICTURES, 8, device="cpu")
    bad = layer_errors(rethresholded(network, layer, after, 0.1), PICTURES, 8, device="cpu")
    assert all(split.cause != "clipping" for split in good.local.values())
    assert good.local[layer].clipping < 1e-3
    assert bad.local[layer].cause == "clipping" == bad.own[layer].cause
    assert bad.local[layer].clipping > 10 * sum(bad.local[name].clipping for name in LAYERS if name != layer)
    unclipped = {name: bad.divergences[name].unclipped for name in LAYERS}
    assert max(unclipped, key=lambda name: unclipped[name]) == layer
    assert unclipped[layer] > bad.networks["spiking"].divergence
    assert any(f"threshold of layer {layer!r} is too low" in line for line in analysis_lines(bad.to_dict()))
    assert not any("too low" in line for line in analysis_lines(good.to_dict()))


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_spoiled_potential_is_timing_there_and_the_layer_to_repair(layer: str, schedule: Any) -> None:
    bad = layer_errors(spoiled(unclipping(schedule), layer, 3.0), PICTURES, 4, device="cpu")
    assert bad.local[layer].cause == "timing" and bad.worst == layer
    assert bad.divergences[layer].repaired < bad.networks["spiking"].divergence / 2
    others = [bad.local[name] for name in LAYERS if name != layer]
    assert all(split.timing < bad.local[layer].timing / 4 for split in others)
    (line,) = (line for line in analysis_lines(bad.to_dict()) if "costs most" in line)
    assert repr(layer) in line and line.endswith("mostly timing.")


def test_the_states_of_a_per_sample_method_are_those_of_its_run() -> None:
    network, pictures = two_layers(seed=4), dyadic_images(12)
    data = Dataset(pictures, np.random.default_rng(0).integers(0, 4, 12), "noise", "none")
    actual = layer_errors(network, data, 2, calibration=COS(rho=4), device="cpu", batch_size=5)
    trace = simulate(network, data, 2, calibration=COS(rho=4), device="cpu")
    assert actual.method == "cos"
    assert actual.networks["spiking"].accuracy == trace.accuracy(present(data.labels))[-1]
    for name, spikes in trace.spikes.items():
        rate = spikes.mean(0)
        total = actual.own[name].total
        slow = Slow(network, pictures, 2)
        unclipped = slow.through(dict.fromkeys(LAYERS, slow.relu))[0][name]
        assert total == pytest.approx(((rate - unclipped) ** 2).mean(), rel=1e-5)
    with pytest.raises(InputError, match="layer-wise"):
        layer_errors(replace(network, schedule="layerwise"), data, 2, calibration=COS(rho=4))


def test_batches_change_nothing_and_the_document_is_plain() -> None:
    network, pictures = two_layers(seed=5), dyadic_images(9)
    documents = [layer_errors(network, pictures, 2, batch_size=size, device="cpu").to_dict() for size in (9, 2)]
    for name in LAYERS:
        for part in ("own", "local", "divergence"):
            one, other = (document["layers"][name][part] for document in documents)
            for key, value in one.items():
                assert value == other[key] or value == pytest.approx(other[key], rel=1e-6), (name, part, key)
    assert documents[0]["networks"]["clipped"] == {"divergence": 0.0, "accuracy": None}


def test_what_cannot_be_analysed_is_refused() -> None:
    network, pictures = two_layers(seed=5), dyadic_images(3)
    value = replace(network.neurons["first"], reset="value", v_reset=np.zeros((3, 5, 5), np.float32))
    with pytest.raises(NetworkError, match="reset to a value"):
        layer_errors(
            replace(network.with_neurons({**network.neurons, "first": value}), schedule="layerwise"), pictures, 2
        )
    with pytest.raises(InputError, match="batch_size"):
        layer_errors(network, pictures, 2, batch_size=0)
    with pytest.raises(InputError):
        layer_errors(network, pictures)
    huge = network.with_neurons(
        {name: NeuronSpec(spec.threshold * np.float32(1e-30), spec.v_init) for name, spec in network.neurons.items()}
    )
    with pytest.raises(NetworkError, match="beyond what float32 holds"):
        layer_errors(huge, pictures, 2)


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
def test_all_figures_of_random_wirings_are_those_of_the_definitions(schedule: Any) -> None:
    """Joins, heads anywhere, neurons without a synapse, silenced ones, biases by step, both comparisons."""
    for seed in range(4):
        network = replace(random_graph(seed), schedule=schedule)
        # Of a power of two, so that no quotient is rounded, and no spike hangs on that.
        specs = {
            name: replace(spec, threshold=np.exp2(np.round(np.log2(spec.threshold))).astype(np.float32))
            for name, spec in network.neurons.items()
        }
        network = network.with_neurons(specs)
        steps, pictures = (1, 2, 4, 8)[seed % 4], sparse_images(network, 5, seed)
        labels = np.random.default_rng(seed).integers(0, 3, 5)
        actual = layer_errors(network, Dataset(pictures, labels, "dyadic", "none"), steps, device="cpu", batch_size=2)
        slow = Splitting(Machine(network), pictures, steps)
        rules = {kind: getattr(slow, kind) for kind in ("unclipped", "clipped", "quantised", "spiking")}
        runs = {kind: slow.run(rule) for kind, rule in rules.items()}
        answers = runs["clipped"][2]
        close: dict[str, Any] = {"rel": 1e-4, "abs": 1e-6}
        for kind, (_, _, logits) in runs.items():
            assert actual.networks[kind].divergence == pytest.approx(kl_of(answers, logits), **close), (seed, kind)
            if kind == "spiking":
                assert actual.networks[kind].accuracy == (logits.argmax(1) == labels).mean()
        currents, spikes, _ = runs["spiking"]
        for name in network.layers:
            u, c, q = (rules[kind](name, currents[name]) for kind in ("unclipped", "clipped", "quantised"))
            local = split(u, c, q, spikes[name])
            u, c, q, s = (runs[kind][1][name] for kind in rules)
            own = split(u, c, q, s)
            for parts, expected in ((actual.own[name], own), (actual.local[name], local)):
                assert {key: getattr(parts, key) for key in expected} == pytest.approx(expected, **close), (seed, name)
            others = {
                "unclipped": slow.run(slow.clipped, {name: slow.unclipped}),
                "alone": slow.run(slow.clipped, {name: slow.alone}),
                "repaired": slow.run(slow.spiking, {name: slow.clipped}),
            }
            for kind, (_, _, logits) in others.items():
                found = getattr(actual.divergences[name], kind)
                assert found == pytest.approx(kl_of(answers, logits), **close), (seed, name, kind)
