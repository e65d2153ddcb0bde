"""OpenVINO runs model.onnx spike for spike, in float32 whatever the processor can do."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_networks as build
from integer_networks import in_fixed_point, integer_images

import targets
from calibration import COS, SRP
from cos_export.bundle import Bundle, load
from cos_export.errors import BundleError, InputError, TargetError, UnavailableError
from cos_export.exporting import export, export_and_verify
from cos_export.network import SampleStates, SpikingNetwork
from cos_export.parity import verify
from cos_export.simulation import simulate
from targets.openvino import OpenVinoTarget

STEPS = 4


def bundle_of(network: SpikingNetwork, folder: Path, samples: int = 5) -> Bundle:
    integers = network.quantisation is not None
    images = integer_images(network, samples) if integers else build.images(network, samples)
    return export(network, folder / "bundle", STEPS, golden=images)


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
@pytest.mark.parametrize("numerics", ["float32", "int8"])
def test_every_spike_of_both_schedules_and_numerics(tmp_path: Path, schedule: Any, numerics: str) -> None:
    network = build.residual(np.random.default_rng(1), bias_steps=1, silenced=True)
    if numerics == "int8":
        network = in_fixed_point(network, 1)
    result = verify(bundle_of(replace(network, schedule=schedule), tmp_path), [OpenVinoTarget(batch_size=2)])
    assert result.passed
    if (schedule, numerics) == ("layerwise", "float32"):
        # It divides by a threshold by a product with the inverse, and may decide a potential that ties the other way.
        ties = sum(int(layer.near_ties.sum()) for layer in result["openvino"].local.layers.values())
        assert result["openvino"].mismatches <= ties
    else:
        assert result["openvino"].mismatches == 0
    assert result["openvino"].version.startswith("openvino 20")


@pytest.mark.parametrize("seed", range(6))
def test_any_network(tmp_path: Path, seed: int) -> None:
    assert verify(bundle_of(build.random_network(seed), tmp_path), [OpenVinoTarget()])["openvino"].mismatches == 0


@pytest.mark.parametrize("numerics", ["float32", "int8"])
def test_frames(tmp_path: Path, numerics: str) -> None:
    network = build.residual(np.random.default_rng(0))
    network = replace(in_fixed_point(network, 0) if numerics == "int8" else network, input_encoding="frames")
    frames = np.random.default_rng(1).integers(-8, 9, (3, STEPS, *network.input_shape)).astype(np.float32)
    bundle = export(network, tmp_path / "bundle", STEPS, golden=frames)
    assert verify(bundle, [OpenVinoTarget(batch_size=2)])["openvino"].mismatches == 0


@pytest.mark.parametrize("method", [COS(rho=4), SRP(tau=3)])
def test_states_of_each_sample(tmp_path: Path, method: Any) -> None:
    network = build.residual(np.random.default_rng(3))
    bundle, parity = export_and_verify(
        network,
        tmp_path / "out",
        STEPS,
        golden=build.images(network, 5),
        calibration=method,
        targets=[OpenVinoTarget(batch_size=2)],
    )
    assert parity is not None and parity.passed and parity["openvino"].mismatches == 0
    wrong = SampleStates({"if9": np.zeros((5, 4, 6, 5), np.float32)}, {})
    with pytest.raises(InputError, match=r"no v_init for layer 'if9'; it has one for 'if1', 'if2'"):
        OpenVinoTarget().run(bundle, bundle.golden.images, STEPS, states=wrong)
    short = SampleStates({"if1": np.zeros((4, 4, 6, 5), np.float32)}, {})
    with pytest.raises(InputError, match="must have shape"):
        OpenVinoTarget().run(bundle, bundle.golden.images, STEPS, states=short)


def test_fewer_steps_no_spikes_and_more_steps_than_there_are(tmp_path: Path) -> None:
    bundle = bundle_of(build.residual(np.random.default_rng(2)), tmp_path)
    images = bundle.golden.images
    actual = OpenVinoTarget(threads=1).run(bundle, images, 2)
    expected = simulate(bundle.network, images, 2)
    assert all(np.array_equal(actual.spikes[name], spikes) for name, spikes in expected.spikes.items())
    bare = OpenVinoTarget(threads=1).run(bundle, images, STEPS, record_spikes=False)
    assert not bare.spikes and bare.logits.shape == bundle.golden.trace.logits.shape
    with pytest.raises(InputError, match=r"has 4 steps, and 5 were asked for"):
        OpenVinoTarget().run(bundle, images, 5)


def test_it_computes_in_float32_and_in_nothing_less(tmp_path: Path) -> None:
    bundle = bundle_of(build.residual(np.random.default_rng(2)), tmp_path)
    compiled = OpenVinoTarget()._compiled(bundle, [], True)
    assert str(compiled.get_property("INFERENCE_PRECISION_HINT")) == "<Type: 'float32'>"


def test_nothing_is_told_to_its_maker(tmp_path: Path) -> None:
    bundle_of(build.residual(np.random.default_rng(2)), tmp_path)
    program = """
import sys
import cos_export
result = cos_export.verify(sys.argv[1], targets=["openvino"])
assert result.passed and "openvino" in sys.modules
assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
"""
    path = {"PYTHONPATH": str(Path(targets.__file__).parents[1])}
    command = [sys.executable, "-c", program, str(tmp_path / "bundle")]
    subprocess.run(command, check=True, env={**os.environ, **path})


def test_options_and_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({"threads": 0}, {"batch_size": 0}, {"deadline": -1.0}):
        with pytest.raises(InputError, match=next(iter(options))):
            OpenVinoTarget(**options)
    bundle = bundle_of(build.residual(np.random.default_rng(2)), tmp_path)
    there = importlib.util.find_spec
    monkeypatch.setattr("targets.openvino.find_spec", lambda name: None if name == "openvino" else there(name))
    assert "cos-export[openvino]" in targets.get("openvino").available().reason
    with pytest.raises(UnavailableError, match="not installed"):
        OpenVinoTarget().run(bundle, bundle.golden.images, STEPS)


def test_a_deadline_and_a_graph_that_is_damaged(tmp_path: Path) -> None:
    bundle = bundle_of(build.residual(np.random.default_rng(2)), tmp_path)
    with pytest.raises(TargetError, match=r"OpenVINO was not done within 1e-09 s: 0 of 5 samples were"):
        OpenVinoTarget(deadline=1e-9).run(bundle, bundle.golden.images, STEPS)
    loaded = load(bundle.path)
    (bundle.path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(BundleError, match="not an ONNX graph"):
        OpenVinoTarget().run(loaded, bundle.golden.images, STEPS)
