"""Inputs that change with time: one frame for each step."""

from __future__ import annotations

from dataclasses import replace

import nir
import numpy as np
import pytest
import random_networks as build
from event_camera_networks import EVENT_CAMERA_FILES, STEPS, event_frames, write_event_camera_file
from nir_interpreter import interpret

from calibration import COS, calibrate
from cos_export.costing.counted_run import counted_run
from cos_export.errors import InputError
from cos_export.exporting import export
from cos_export.lowering import lowered
from cos_export.nir_file import read_nir, write_nir
from cos_export.parity.local import check_local
from cos_export.quantisation import quantise
from cos_export.simulation import ann_logits, simulate
from targets.onnxruntime import OnnxRuntimeTarget
from targets.verification import verify

pytestmark = pytest.mark.filterwarnings("ignore::cos_export.nir_file.conventions.AssumptionNotice")
T = 4


@pytest.mark.parametrize("name", EVENT_CAMERA_FILES)
def test_files_of_event_cameras_fire_what_the_equations_of_nir_do(tmp_path, name):
    path, chosen = tmp_path / "model.nir", EVENT_CAMERA_FILES[name]
    write_event_camera_file(path, chosen)
    frames = event_frames(2)
    read = {reset: read_nir(path, reset=reset, condition=">=") for reset in ("subtract", "value")}
    for reset, network in read.items():
        expected = interpret(
            path, frames.swapaxes(0, 1), subtract=reset == "subtract", at_threshold=True, dt=1 / chosen.r
        )
        actual = simulate(network, frames, STEPS)
        assert actual.spikes.keys() == expected.spikes.keys()
        for layer, spikes in expected.spikes.items():
            np.testing.assert_array_equal(actual.spikes[layer], spikes, err_msg=f"{reset} {layer}")
            assert 0 < spikes.mean() < 1
            # Frames change, and so does what the first layer fires.
            assert (spikes != spikes[:1]).any()
        np.testing.assert_allclose(actual.logits, expected.logits, rtol=1e-6)
        assert check_local(network, frames, actual).violations == 0


def network_and_frames(seed=0, **choices):
    network = build.residual(np.random.default_rng(seed))
    if choices:
        network = network.with_neurons({name: replace(spec, **choices) for name, spec in network.neurons.items()})
    frames = build.dyadic(np.random.default_rng(seed + 1), 6, T, *network.input_shape, low=-4, high=8)
    return network, frames


def test_an_image_shown_as_many_frames_is_one_that_is_held():
    network, frames = network_and_frames()
    image = frames[:, 0]
    held, shown = simulate(network, image, T), simulate(network, np.repeat(image[:, None], T, axis=1), T)
    for name, spikes in held.spikes.items():
        np.testing.assert_array_equal(shown.spikes[name], spikes)
    np.testing.assert_array_equal(shown.logits, held.logits)


def test_fewer_steps_are_the_first_ones_and_more_are_refused():
    network, frames = network_and_frames()
    whole, part = simulate(network, frames, T), simulate(network, frames, 2)
    for name, spikes in whole.spikes.items():
        np.testing.assert_array_equal(part.spikes[name], spikes[:2])
    with pytest.raises(InputError, match="There are 4 frames for each sample, and 5 steps"):
        simulate(network, frames, 5)


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
@pytest.mark.parametrize("numerics", ["float32", "int8"])
def test_a_bundle_of_frames_is_exact_in_onnx(tmp_path, schedule, numerics):
    network, frames = network_and_frames(bias=None, silent=None, levels=None)
    # Powers of two, by which nothing rounds where a layer-wise graph divides by them.
    network = network.with_neurons(
        {name: replace(spec, threshold=np.full(spec.shape, 2, np.float32)) for name, spec in network.neurons.items()}
    )
    if numerics == "int8":
        network = quantise(network, frames, steps=T)
        network = calibrate(network, frames, "half", T)
        assert network.input_encoding == "frames"
    network = replace(network, schedule=schedule)
    bundle = export(network, tmp_path / "out", T, golden=frames)
    assert bundle.manifest["input_encoding"] == bundle.network.input_encoding == "frames"
    assert bundle.golden.images.shape == frames.shape
    result = verify(bundle, ["pytorch", "onnxruntime"])
    assert result.passed
    assert [target.mismatches for target in result.targets.values()] == [0, 0]
    if schedule == "synchronous":
        part = OnnxRuntimeTarget().run(bundle, frames, 2)
        np.testing.assert_array_equal(part.spikes["if1"], bundle.golden.trace.spikes["if1"][:2])


def test_a_layer_wise_network_integrates_the_sum_of_the_frames():
    network, frames = network_and_frames(bias=None, silent=None)
    actual = simulate(replace(network, schedule="layerwise"), frames, T)
    conv, spec = network.graph.nodes["conv1"], network.neurons["if1"]
    # By hand: m = v_init + sum over t of (W x(t) + b), n = clip(floor(m / theta), 0, T), s(k) = n >= k.
    padded = np.pad(frames.astype(np.float64), ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1)))
    charged = np.zeros((len(frames), *spec.shape)) + spec.v_init
    for t in range(T):
        for i in range(3):
            for j in range(3):
                window = padded[:, t, :, i : i + spec.shape[1], j : j + spec.shape[2]]
                charged += np.einsum("nchw,oc->nohw", window, conv.weight[:, :, i, j].astype(np.float64))
        charged += conv.bias.reshape(-1, 1, 1)
    counts = np.clip(np.floor(charged / spec.threshold), 0, T)
    np.testing.assert_array_equal(actual.spikes["if1"].sum(0), counts)
    assert 0 < counts.mean() < T


def test_a_network_of_frames_takes_nothing_else_and_keeps_that_in_its_file(tmp_path):
    network, frames = network_and_frames()
    network = replace(network, input_encoding="frames")
    write_nir(network, tmp_path / "model.nir")
    assert nir.read(tmp_path / "model.nir", type_check=False).metadata["input_encoding"] == "frames"
    again = read_nir(tmp_path / "model.nir")
    assert again.input_encoding == "frames"
    with pytest.raises(InputError, match="takes frames of shape"):
        simulate(again, frames[:, 0], T)
    with pytest.raises(InputError, match="takes frames"):
        lowered(replace(again, schedule="layerwise"), T)


def test_artificial_activations_take_the_mean_over_time():
    network, frames = network_and_frames()
    mean = frames.astype(np.float64).mean(axis=1).astype(np.float32)
    np.testing.assert_array_equal(ann_logits(network, frames), ann_logits(network, mean))
    by_frames, by_mean = (calibrate(network, images, "mean-matching", T) for images in (frames, mean))
    assert (by_frames.input_encoding, by_mean.input_encoding) == ("frames", "constant")
    for name, spec in by_mean.neurons.items():
        np.testing.assert_array_equal(by_frames.neurons[name].v_init, spec.v_init)


def test_methods_of_samples_are_refused_by_name():
    network, frames = network_and_frames()
    with pytest.raises(InputError, match="'cos' pre-simulates an input that is held"):
        simulate(network, frames, T, calibration=COS(rho=2))


def test_what_frames_cost_is_counted_at_every_step():
    rng = np.random.default_rng(3)
    network = build.sequential(rng, (6,), [build.affine(rng, 6, 5), build.IF])
    frames = (rng.random((7, T, 6)) < 0.4).astype(np.float32)
    _, counted = counted_run(network, frames, T)
    weights = network.graph.nodes["affine0"].weight != 0
    # Every event meets the weights of its column that are not 0.
    expected = float((frames.sum(axis=(0, 1)) * weights.sum(axis=0)).sum()) / len(frames)
    assert counted.at(T).effective_macs == pytest.approx(expected)
    assert counted.at(2).effective_macs == pytest.approx(
        float((frames[:, :2].sum(axis=(0, 1)) * weights.sum(axis=0)).sum()) / len(frames)
    )
