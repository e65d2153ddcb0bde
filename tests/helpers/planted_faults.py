"""Faults that a target may have, and where the oracle (tests/integer_reference.py) says that they show first."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import integer_reference
import nir
import numpy as np

from calibration import SRP
from cos_export.bundle import Bundle
from cos_export.bundle.golden import Golden, write_golden
from cos_export.bundle.target import Availability, Target
from cos_export.network import FloatArray, NeuronSpec, Quantisation, SampleStates, SpikingNetwork
from cos_export.nir_file import write_nir
from cos_export.onnx_file import write_onnx
from cos_export.parity import verify
from cos_export.progress import Progress, silent
from cos_export.simulation import simulate
from cos_export.simulation.trace import Trace

STEPS = 4
SAMPLES = 4

NUDGED = (0, 0, 4)
"""A neuron that lacks 1/2 at one of its steps."""


def chain(*, bias_steps: int = 0, masked: bool = False, ties: bool = False) -> SpikingNetwork:
    """Two convolutions with neurons and a linear readout, in small integers: an error of 1 is soon a wrong spike.

    Args:
        bias_steps: Steps of a bias that the second layer has beside its currents.
        masked: Whether every third neuron of the second layer is silent.
        ties: Whether v_init are integers, so that potentials meet the thresholds, in a network that is run in
            float32: int8 allows no such potential.
    """
    rng = np.random.default_rng(5)

    def whole(*shape: int, largest: int = 6) -> FloatArray:
        return rng.integers(-largest, largest + 1, shape).astype(np.float32)

    def neurons(theta: int, bias: FloatArray | None = None) -> NeuronSpec:
        threshold = np.full((3, 5, 5), theta, np.float32)
        return NeuronSpec(threshold, whole(3, 5, 5, largest=theta) + np.float32(0 if ties else 0.5), bias=bias)

    specs = {"first": neurons(20), "second": neurons(9, whole(bias_steps, 3) if bias_steps else None)}
    nodes: dict[str, nir.NIRNode] = {
        "input": nir.Input({"input": np.array([2, 5, 5])}),
        "enter": nir.Conv2d((5, 5), whole(3, 2, 3, 3), 1, 1, 1, 1, whole(3)),
        "first": nir.IF(np.ones((3, 5, 5), np.float32), specs["first"].threshold),
        "inner": nir.Conv2d((5, 5), whole(3, 3, 3, 3), 1, 1, 1, 1, np.array([3, -4, 2], np.float32)),
        "second": nir.IF(np.ones((3, 5, 5), np.float32), specs["second"].threshold),
        "flat": nir.Flatten({"input": np.array([3, 5, 5])}, -3, -1),
        "head": nir.Affine(whole(3, 75), whole(3)),
        "output": nir.Output({"output": np.array([3])}),
    }
    graph = nir.NIRGraph(nodes, list(pairwise(nodes)))
    if masked:
        specs["second"] = replace(specs["second"], silent=(np.arange(75) % 3 == 0).reshape(3, 5, 5))
    network = SpikingNetwork(graph, specs, num_timesteps=STEPS)
    return network if ties else _in_integers(network)


def _in_integers(network: SpikingNetwork) -> SpikingNetwork:
    return replace(network, quantisation=Quantisation(1.0, -8, 8, 0.5))


def pictures() -> FloatArray:
    return np.random.default_rng(6).integers(-8, 9, (SAMPLES, 2, 5, 5)).astype(np.float32)


def _with_weight(network: SpikingNetwork, change: Callable[[FloatArray], FloatArray]) -> SpikingNetwork:
    nodes = dict(network.graph.nodes)
    nodes["inner"] = copy.copy(nodes["inner"])
    nodes["inner"].weight = np.ascontiguousarray(change(nodes["inner"].weight))
    return replace(network, graph=nir.NIRGraph(nodes, list(network.graph.edges)))


def _with_second(network: SpikingNetwork, **changes: Any) -> SpikingNetwork:
    return network.with_neurons({"second": replace(network.neurons["second"], **changes)})


def weight_off_by_one(network: SpikingNetwork) -> SpikingNetwork:
    one = np.zeros((3, 3, 3, 3), np.float32)
    one[1, 2, 0, 1] = 1
    return _with_weight(network, lambda weight: weight + one)


def transposed_kernel(network: SpikingNetwork) -> SpikingNetwork:
    return _with_weight(network, lambda weight: weight.transpose(0, 1, 3, 2))


def v_init_off_by_one(network: SpikingNetwork) -> SpikingNetwork:
    v_init = network.neurons["second"].v_init.copy()
    v_init[NUDGED] += 1
    return _with_second(network, v_init=v_init)


def bias_before_the_first_current(network: SpikingNetwork) -> SpikingNetwork:
    """The layer integrates the bias of the synapse in front of it once more, while it waits for the first spikes."""
    bias = network.graph.nodes["inner"].bias
    return _with_second(network, v_init=network.neurons["second"].v_init + bias.reshape(3, 1, 1))


def bias_per_step_early(network: SpikingNetwork) -> SpikingNetwork:
    """beta(t + 1) is added at step t."""
    bias = network.neurons["second"].bias
    assert bias is not None
    return _with_second(network, bias=bias[1:])


def strict_comparison(network: SpikingNetwork) -> SpikingNetwork:
    return _with_second(network, condition=">")


def strict_comparison_of_floors(network: SpikingNetwork) -> SpikingNetwork:
    """floor(m) > theta, where floor(m) >= theta is m >= theta: the same spikes as of potentials one lower.

    No network of integers has potentials that meet a threshold, so that a strict comparison of m itself is not a fault.
    """
    return _with_second(network, v_init=network.neurons["second"].v_init - 1)


def silent_mask_ignored(network: SpikingNetwork) -> SpikingNetwork:
    return _with_second(network, silent=None)


NETWORKS = {
    "half-integers": chain(),
    "a bias per step": chain(bias_steps=3),
    "silent neurons": chain(masked=True),
    "ties": chain(ties=True),
}


@dataclass(frozen=True)
class Fault:
    """A network, and what a faulty target makes of it.

    Attributes:
        name: What is wrong.
        network: What should be run.
        plant: Makes of it what is run; the layer "second" is the first that errs.
    """

    name: str
    network: SpikingNetwork
    plant: Callable[[SpikingNetwork], SpikingNetwork]


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("a weight off by one", NETWORKS["half-integers"], weight_off_by_one),
        Fault("v_init off by one", NETWORKS["half-integers"], v_init_off_by_one),
        Fault("the synapse's bias before the first current", NETWORKS["half-integers"], bias_before_the_first_current),
        Fault("the bias per step one step early", NETWORKS["a bias per step"], bias_per_step_early),
        Fault("a transposed kernel", NETWORKS["half-integers"], transposed_kernel),
        Fault("a strict comparison of floors", NETWORKS["half-integers"], strict_comparison_of_floors),
        Fault("the silent mask ignored", NETWORKS["silent neurons"], silent_mask_ignored),
    )
}

STRICT_AT_TIES = Fault("a strict comparison", NETWORKS["ties"], strict_comparison)
"""What float32 alone can show, where no target may rely on it."""


def artefact(network: SpikingNetwork, folder: Path, states: SampleStates | None = None) -> Bundle:
    """What targets run and are compared with: of a bundle what they read, without the manifest."""
    folder.mkdir()
    write_nir(network, folder / "model.nir")
    # A graph that silences by itself has all states that may be given in its place.
    write_onnx(network, folder / "model.onnx", STEPS, calibration=None if states is None else SRP(tau=1))
    write_golden(
        folder / "golden.npz", Golden(pictures(), simulate(network, pictures(), STEPS, states=states, device="cpu"))
    )
    return Bundle(folder, {"normalisation": None})


@dataclass(frozen=True)
class Faulty:
    """A target that runs another artefact than it is given, or forgets what is silent in each sample."""

    target: Target
    runs: Bundle
    forgets_masks: bool = False

    @property
    def name(self) -> str:
        return self.target.name

    def available(self) -> Availability:
        return self.target.available()

    def run(
        self,
        bundle: Bundle,
        images: FloatArray,
        steps: int,
        *,
        states: SampleStates | None = None,
        record_spikes: bool = True,
        progress: Progress = silent,
    ) -> Trace:
        if self.forgets_masks and states is not None:
            states = replace(states, silent={})
        return self.target.run(self.runs, images, steps, states=states, record_spikes=record_spikes, progress=progress)


def first_difference(fault: Fault) -> tuple[str, int, int, tuple[int, ...], bool]:
    """Layer, step, sample and neuron of the first spike that a fault changes, and whether it fires there.

    The earliest step counts first, then the layer, then the sample: in Python's integers, one neuron at a time.
    """
    right, wrong = _in_integers(fault.network), _in_integers(fault.plant(fault.network))
    actual = []
    for sample, picture in enumerate(pictures()):
        expected, _ = integer_reference.run(right, picture, STEPS)
        fired, _ = integer_reference.run(wrong, picture, STEPS)
        for rank, layer in enumerate(right.layers):
            for at in map(tuple, np.argwhere(expected[layer] != fired[layer]).tolist()):
                actual.append((at[0] + 1, rank, sample, at[1:], bool(fired[layer][at])))
    step, rank, sample, neuron, fires = min(actual)
    return right.layers[rank], step, sample, neuron, fires


def check_passes(target: Target, network: SpikingNetwork, runs: SpikingNetwork, folder: Path) -> None:
    """The target fires what `network` fires although it runs `runs`."""
    runner = Faulty(target, artefact(runs, folder / "runs"))
    actual = verify(artefact(network, folder / "right"), [runner])[target.name]
    assert actual.passed and actual.comparison.identical
    assert (actual.mismatches, actual.local_violations, actual.comparison.first) == (0, 0, None)


def check_found_and_located(target: Target, fault: Fault, folder: Path) -> None:
    """`verify` must say where a target errs that runs the fault."""
    right, wrong = fault.network, fault.plant(fault.network)
    runner = Faulty(target, artefact(wrong, folder / "wrong"))
    actual = verify(artefact(right, folder / "right"), [runner])[target.name]
    assert not actual.passed and actual.mismatches > 0
    first = actual.comparison.first
    assert first is not None
    assert (first.layer, first.step, first.sample, first.neuron, first.fired) == first_difference(fault)
    # What the neuron lacks or has too much: the target decided against it, or a silent neuron reached the next layer.
    assert (first.margin < 0) == (first.fired and fault.plant is not silent_mask_ignored)
    assert first.bound == 0 and first.margin % 1 == 0.5, "potentials are half-integers"
    # Locally no layer is to blame but the one with the fault, and the first violation is the first divergence.
    assert {name for name, layer in actual.local.layers.items() if layer.violations.any()} == {"second"}
    listed = actual.local.listed[0]
    assert (listed.layer, listed.step, listed.sample, listed.neuron) == (
        first.layer,
        first.step,
        first.sample,
        first.neuron,
    )
    assert (listed.fired, listed.margin) == (first.fired, first.margin)


def check_strict_comparison_in_float32(target: Target, folder: Path) -> None:
    """No backend of float32 may rely on a tie, so locally it passes; end to end it shows, with a margin of nothing."""
    right = STRICT_AT_TIES.network
    runner = Faulty(target, artefact(strict_comparison(right), folder / "wrong"))
    actual = verify(artefact(right, folder / "right"), [runner])[target.name]
    first = actual.comparison.first
    assert first is not None and actual.mismatches > 0
    assert (first.layer, first.step, first.sample, first.neuron, first.fired) == first_difference(STRICT_AT_TIES)
    assert first.margin == 0 and 0 < first.bound < 1e-3
    assert actual.local_violations == 0 and actual.local.layers["second"].near_ties[first.step - 1] > 0


def check_masks_of_samples_ignored(target: Target, folder: Path) -> None:
    """Each sample has silent neurons of its own, as srp's: a target that forgets them is found, and one that does not
    passes."""
    network = NETWORKS["half-integers"]
    masks = np.random.default_rng(7).random((SAMPLES, 3, 5, 5)) < 0.3
    bundle = artefact(network, folder / "right", SampleStates(silent={"second": masks}))
    assert verify(bundle, [target]).passed
    actual = verify(bundle, [Faulty(target, bundle, forgets_masks=True)])[target.name]
    violations = {name: layer.violations.sum() for name, layer in actual.local.layers.items()}
    assert not actual.local.readout.violations.any()
    # Every spike of a masked neuron is one too many, and nothing else is: a neuron's potential goes on all the same.
    fired = simulate(network, pictures(), STEPS, device="cpu").spikes["second"]
    too_many = int(np.count_nonzero(fired & masks))
    assert too_many > 0 and not actual.passed
    assert (actual.mismatches, violations) == (too_many, {"first": 0, "second": too_many})
    first = actual.comparison.first
    assert first is not None and first.fired and masks[(first.sample, *first.neuron)] and first.margin > 0
