from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import nir
import numpy as np
import onnxruntime
import pytest
import torch
from eight_bit_networks import in_integers, pictures, topology
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_reference import quantised_input
from small_networks import two_layers

from calibration import COS, FTBC, RMP, SRP, BiasCorrection, MeanMatching, Static, calibrate
from cos_export.errors import InputError, NetworkError
from cos_export.network import NeuronSpec, Quantisation, SpikingNetwork
from cos_export.network.schedule import Schedule
from cos_export.onnx_file import build_model
from cos_export.quantisation import check_ranges, quantise
from cos_export.simulation import simulate
from cos_export.simulation.activations import clipped_activation
from cos_export.simulation.fixed_point import (
    LARGEST_START,
    half_integers,
    quantise_input,
    round_to_half_integers,
    start_potentials,
)
from cos_export.simulation.program import Program


def spikes(currents: list[int], theta: int, v_init: float, strict: bool) -> list[bool]:
    v, fired = v_init, []
    for current in currents:
        m = v + current
        fired.append(m > theta if strict else m >= theta)
        v = m - theta * fired[-1]
    return fired


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(-9, 9), min_size=1, max_size=12),
    st.integers(1, 8),
    st.integers(-160, 160),
    st.booleans(),
)
def test_half_integers_start_the_same_spikes(currents: list[int], theta: int, eighths: int, strict: bool) -> None:
    v_init = eighths / 8
    [half] = half_integers(np.array([v_init], np.float32), strict=strict)
    assert (2 * float(half)) % 2 == 1 and abs(half - v_init) <= 0.5
    expected = spikes(currents, theta, v_init, strict)
    assert spikes(currents, theta, float(half), False) == spikes(currents, theta, float(half), True) == expected
    # What a chip of integers may hold: the whole part, compared with >=.
    assert spikes(currents, theta, float(np.floor(half)), False) == expected


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
@pytest.mark.parametrize("sign", [1, -1])
def test_potentials_that_leave_24_bits_are_refused(schedule: Schedule, sign: int) -> None:
    """v = 0.5 + T (100,000 - 10) or 0.5 - T 100,000 is within 2^23 - 1 = 8,388,607 for T = 83, and not for 84."""
    nodes = {
        "input": nir.Input(np.array([1])),
        "synapse": nir.Affine(np.full((1, 1), 1000, np.float32), np.zeros(1, np.float32)),
        "layer": nir.IF(np.ones(1), np.full(1, 10, np.float32)),
        "head": nir.Affine(np.ones((1, 1), np.float32), np.zeros(1, np.float32)),
        "output": nir.Output(np.array([1])),
    }
    spec = NeuronSpec(nodes["layer"].v_threshold, np.full(1, 0.5, np.float32))
    graph = nir.NIRGraph(nodes, list(pairwise(nodes)))
    network = SpikingNetwork(graph, {"layer": spec}, quantisation=Quantisation(1.0, -128, 127, 1.0), schedule=schedule)
    image = np.full((1, 1), 100 * sign, np.float32)
    assert simulate(network, image, 83).spikes["layer"].sum() == (83 if sign > 0 else 0)
    with pytest.raises(NetworkError, match=r"potentials of layer 'layer' leave the 24 bits"):
        simulate(network, image, 84)
    assert simulate(replace(network, quantisation=None), image, 84).steps == 84


def test_half_integers_stay_as_they_are() -> None:
    halves = np.array([-2.5, -0.5, 0.5, 4194303.5], np.float32)
    for strict in (False, True):
        np.testing.assert_array_equal(half_integers(halves, strict=strict), halves)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-4, 10.0), st.booleans())
def test_images_are_rounded_as_exact_fractions_are(seed: int, scale: float, signed: bool) -> None:
    coding = Quantisation(float(np.float32(scale)), -127 if signed else 0, 127 if signed else 255)
    rng = np.random.default_rng(seed)
    images = (rng.normal(size=24) * 100 * scale).astype(np.float32)
    images[::3] = (np.rint(images[::3] / scale) + 0.5) * np.float32(scale)
    expected = quantised_input(images, coding.input_scale, coding.input_minimum, coding.input_maximum)
    for dtype in (torch.float32, torch.float64):
        actual = quantise_input(torch.from_numpy(images).to(dtype), coding)
        assert actual.dtype == dtype
        assert {(i,): int(v) for i, v in enumerate(actual.tolist())} == expected


@pytest.mark.parametrize("numerics", ["int8", "float32"])
def test_on_a_gpu_integers_are_summed_without_cudnn(numerics: str) -> None:
    """There need not be one: the synapses run here, and are asked how they would run there."""
    network = topology("residual") if numerics == "float32" else in_integers(topology("residual"), 0)
    program = Program(network)
    program.device = torch.device("cuda")
    asked = []

    def synapse(values: torch.Tensor) -> torch.Tensor:
        asked.append(torch.backends.cudnn.enabled)
        return values[:, :1].expand(-1, 4, -1, -1)

    program._synapses = {**program._synapses, "conv1": synapse, "conv2": synapse}
    program.propagate(torch.zeros(1, 2, 6, 5), clipped_activation)
    assert asked == [numerics == "float32"] * 2 and torch.backends.cudnn.enabled


def test_without_a_quantisation_images_stay_as_they_are() -> None:
    images = torch.rand(2, 3)
    assert quantise_input(images, None) is images


@pytest.mark.parametrize(
    "values",
    [
        {"input_scale": 0.0},
        {"input_scale": 0.1},
        {"readout_scale": np.inf},
        {"input_minimum": -129},
        {"input_maximum": 128},
        {"input_minimum": 1, "input_maximum": 4},
    ],
)
def test_a_quantisation_that_is_none_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(NetworkError):
        Quantisation(**{"input_scale": 0.5, **values})  # type: ignore[arg-type]


def test_numerics_follow_from_the_quantisation() -> None:
    network = two_layers(0)
    assert network.numerics == "float32"
    assert replace(network, quantisation=Quantisation(1.0)).numerics == "int8"


@pytest.mark.parametrize("field", ["weight_bits", "input_bits"])
@pytest.mark.parametrize("bits", [4, 16, 0, True])
def test_another_width_is_refused(field: str, bits: int) -> None:
    with pytest.raises(NetworkError, match=f"^{field} is {bits}; networks of integers have 8 bits here"):
        Quantisation(1.0, **{field: bits})


@pytest.mark.parametrize("method", ["half", MeanMatching(rounds=2), Static(updates=3, samples=4, rounds=1)])
def test_calibration_of_integers_ends_in_half_integers(method: object) -> None:
    network = in_integers(topology("pooling"), 1)
    calibrated = calibrate(network, pictures(network, 8), method, 3)  # type: ignore[arg-type]
    assert (calibrated.numerics, calibrated.num_timesteps) == ("int8", 3)
    assert any((calibrated.neurons[n].v_init != network.neurons[n].v_init).any() for n in network.layers)
    for spec in calibrated.neurons.values():
        np.testing.assert_array_equal(np.mod(spec.v_init, 1.0), 0.5)


def test_tuned_thresholds_and_biases_become_integers_again() -> None:
    network = in_integers(topology("convolutions"), 1)
    method = Static(tune=("potential", "threshold", "bias"), updates=4, samples=4, rounds=1, learning_rate=0.3)
    calibrated = calibrate(network, pictures(network, 8), method, 2)
    for spec in calibrated.neurons.values():
        assert spec.bias is not None and (spec.threshold >= 1).all()
        for values in (spec.threshold, spec.bias, spec.v_init - np.float32(0.5)):
            np.testing.assert_array_equal(values, np.rint(values))


@pytest.mark.parametrize(
    "method",
    [
        BiasCorrection(),
        FTBC(batches=2, samples=4),
        Static(tune=("threshold",), updates=3, samples=4, rounds=1),
        Static(tune=("bias",), updates=3, samples=4, rounds=1),
    ],
    ids=["bias", "ftbc", "static threshold", "static bias"],
)
def test_methods_of_biases_and_thresholds_give_integers_that_both_back_ends_compute_alike(method: object) -> None:
    network = in_integers(topology("residual"), 1)
    images = pictures(network, 8)
    calibrated = calibrate(network, images, method, 2)  # type: ignore[arg-type]
    check_ranges(calibrated, 2)
    trace, actual = simulate(calibrated, images, 2), run_onnx(calibrated, images, 2)
    np.testing.assert_array_equal(actual["logits"], trace.logits)
    for name, fired in trace.spikes.items():
        np.testing.assert_array_equal(actual[f"spikes/{name}"], fired)


def run_onnx(network: SpikingNetwork, images: Any, steps: int) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(build_model(network, steps).SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def test_thresholds_are_balanced_before_a_network_becomes_integers() -> None:
    network = in_integers(topology("pooling"), 1)
    seen: list[str] = []
    with pytest.raises(InputError, match="weights of int8 are integers"):
        calibrate(network, pictures(network, 8), "rmp", 2, progress=lambda stage, *_: seen.append(stage))
    assert not seen
    before = two_layers(0)
    images = np.random.default_rng(0).random((8, *before.input_shape)).astype(np.float32)
    balanced = quantise(calibrate(before, images, RMP(horizon=4), 2), images)
    check_ranges(balanced, 2)
    assert (balanced.numerics, balanced.method) == ("int8", "rmp")


def test_a_method_that_changes_weights_is_refused_by_node() -> None:
    network = in_integers(topology("one_axis"), 1)
    network.graph.nodes["readout"].weight = network.graph.nodes["readout"].weight * np.float32(1.01)
    with pytest.raises(InputError, match="Node 'readout' has weights that are not integers"):
        round_to_half_integers(network)
    assert round_to_half_integers(two_layers(0)).quantisation is None


@pytest.mark.parametrize("method", [COS(rho=3, iterations=2), SRP(tau=3)], ids=["cos", "srp"])
def test_a_per_sample_method_hands_on_half_integers_that_give_its_spikes(method: object) -> None:
    network = in_integers(topology("pooling"), 2)
    images = pictures(network, 5)
    trace = simulate(network, images, 4, calibration=method)  # type: ignore[arg-type]
    assert trace.states is not None
    for potentials in trace.states.v_init.values():
        np.testing.assert_array_equal(np.mod(potentials, 1.0), 0.5)
    again = simulate(network, images, 4, states=trace.states)
    np.testing.assert_array_equal(again.logits, trace.logits)
    for name, fired in trace.spikes.items():
        np.testing.assert_array_equal(again.spikes[name], fired)


def test_a_potential_out_of_reach_is_brought_to_the_largest_start() -> None:
    coding = in_integers(topology("one_axis"), 1).quantisation
    asked = torch.tensor([-2e7, 2e7, 3.2, -3.2, 4.0])
    for strict, others in ((False, [3.5, -3.5, 4.5]), (True, [3.5, -3.5, 3.5])):
        actual = start_potentials(asked, coding, strict=strict)
        assert [abs(value) for value in actual[:2].tolist()] == [LARGEST_START, LARGEST_START]
        assert actual[2:].tolist() == others
    assert start_potentials(asked, None, strict=False) is asked
