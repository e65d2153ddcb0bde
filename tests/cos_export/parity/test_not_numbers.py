"""What is not a finite number, or not a spike, is never explained by rounding."""

from dataclasses import replace
from typing import Literal
from unittest.mock import patch

import nir
import numpy as np
import pytest
import torch
from small_networks import one_neuron, two_layers
from torch import nn

from cos_export.capturing import capture
from cos_export.errors import CaptureError, NetworkError, ParityError
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.parity import check_local, compare
from cos_export.qcfs import QCFS
from cos_export.quantisation import quantise
from cos_export.simulation import simulate

T = 3


@pytest.fixture
def run():
    network = two_layers(3)
    images = np.random.default_rng(0).normal(size=(4, 2, 5, 5)).astype(np.float32)
    return network, images, simulate(network, images, T)


def test_a_sound_run_has_no_violation(run):
    network, images, trace = run
    assert check_local(network, images, trace).violations == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite(run, value):
    network, images, trace = run
    logits = trace.logits.copy()
    logits[T - 1, 2, 1] = value
    wrong = replace(trace, logits=logits)
    local = check_local(network, images, wrong)
    assert local.readout.violations.tolist() == [0, 0, 1]
    comparison = compare(network, images, trace, wrong)
    assert comparison.decisions_changed == 1
    assert not np.isfinite(comparison.logit_difference)
    both = compare(network, images, wrong, wrong)
    assert both.decisions_changed == 1
    assert np.isnan(both.logit_difference)


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, np.nan, np.inf])
def test_a_spike_that_is_neither_0_nor_1(run, value):
    network, images, trace = run
    spikes = {name: array.astype(np.float32) for name, array in trace.spikes.items()}
    assert check_local(network, images, replace(trace, spikes=spikes)).violations == 0
    spikes["second"][T - 1, 1, 4] = value
    wrong = replace(trace, spikes=spikes)
    assert check_local(network, images, wrong).layers["second"].violations.tolist()[T - 1] == 1
    assert compare(network, images, trace, wrong).mismatches == 1


def test_what_is_not_a_number_at_all(run):
    network, images, trace = run
    for wrong in (
        replace(trace, logits=trace.logits.astype(complex)),
        replace(trace, spikes={**trace.spikes, "first": trace.spikes["first"].astype(object)}),
    ):
        for check in (lambda w: check_local(network, images, w), lambda w: compare(network, images, trace, w)):
            with pytest.raises(ParityError, match="must be numbers"):
                check(wrong)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("layer", "field"), [("first", "v_init"), ("second", "v_init"), ("second", "threshold")])
def test_a_margin_that_is_not_finite(run, layer, field, value):
    network, images, trace = run
    broken = network.with_neurons({})
    spec = broken.neurons[layer]
    # A network refuses such numbers; a state that a target was given by another way is what stands for them here.
    array = getattr(spec, field).copy()
    array.flat[0] = value
    object.__setattr__(spec, field, array)
    local = check_local(broken, images, trace)
    # Every step and sample of that neuron, and nothing explains one of them.
    assert local.layers[layer].violations.sum() == T * len(images)


def test_a_bound_that_is_not_finite(run):
    network, images, trace = run
    with patch("cos_export.parity.rounding.gamma", return_value=float("inf")):
        local = check_local(network, images, trace)
    assert local.layers["first"].violations.sum() == trace.spikes["first"].size
    assert not np.isfinite(local.layers["first"].largest_bound)


def _overflowing(weight: float, bias: float, reset: Literal["subtract", "value"] = "subtract") -> SpikingNetwork:
    network = one_neuron(1.0)
    affine = nir.Affine(np.full((1, 1), weight, np.float32), np.array([bias], np.float32))
    spec = network.neurons["neuron"]
    return network.with_nodes({"synapse": affine}).with_neurons({"neuron": replace(spec, reset=reset)})


@pytest.mark.parametrize(("weight", "bias"), [(3e38, 0.0), (-3e38, 0.0), (3e38, -3e38)])
def test_a_sum_that_overflows_is_refused_by_layer(weight, bias):
    network = _overflowing(weight, bias)
    with np.errstate(over="ignore"):
        assert not np.isfinite(np.float32(weight) * np.float32(4))  # so float32 cannot hold it
    with pytest.raises(NetworkError, match="potentials of layer 'neuron' are beyond"):
        simulate(network, np.full((2, 1), 4.0, np.float32), 2)


def test_logits_that_overflow_are_refused():
    head = nir.Affine(np.full((1, 1), 3e38, np.float32), np.array([3e38], np.float32))
    with pytest.raises(NetworkError, match="The logits are beyond"):
        simulate(one_neuron(1.0).with_nodes({"head": head}), np.full((2, 1), 4.0, np.float32), 2)


def test_large_sums_that_float32_holds_run():
    network = _overflowing(1e38, 0.0)
    trace = simulate(network, np.full((2, 1), 1.0, np.float32), 2)
    assert trace.spikes["neuron"].all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["0.weight", "0.bias", "1.weight", "1.running_var", "4.weight"])
def test_a_module_with_weights_that_are_not_finite_is_not_captured(where, value):
    conv = nn.Conv2d(1, 2, 3, padding=1)
    model = nn.Sequential(conv, nn.BatchNorm2d(2), QCFS(4), nn.Flatten(), nn.Linear(32, 3)).eval()
    with torch.no_grad():
        state = model.state_dict()
        state[where].view(-1)[0] = value
    if where == "1.running_var" and value == float("inf"):
        # 1 / sqrt(inf) is 0, in PyTorch too: the channel is its bias.
        assert capture(model, torch.zeros(1, 1, 4, 4)).neuron_count == 32
        return
    with pytest.raises(CaptureError, match=f"{where[0]}: .*not finite"):
        capture(model, torch.zeros(1, 1, 4, 4))


def test_quantising_what_is_not_finite_cannot_happen(run):
    network, images, _ = run
    nodes = dict(network.graph.nodes)
    nodes["dense"].weight[0, 0] = np.nan  # after the network was made
    with pytest.raises(NetworkError, match=r"'dense' \(Affine\): weight holds nan"):
        network.with_neurons({})
    with pytest.raises(NetworkError):
        quantise(network, images, steps=T)


def test_neurons_of_nothing():
    with pytest.raises(NetworkError, match="v_init holds nan"):
        NeuronSpec(np.ones(2, np.float32), np.array([0, np.nan], np.float32))
