"""A golden run that lies in temporary files is written, read, run and judged as one in memory is, to the bit."""

from __future__ import annotations

import mmap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_networks import two_layers

from calibration import COS, SRP
from cos_export.bundle import Bundle, load
from cos_export.bundle.golden import Golden, read_golden, write_golden
from cos_export.errors import BundleError
from cos_export.exporting import export_and_verify
from cos_export.network import SampleStates
from cos_export.simulation import PerSampleCalibration, sample_parts, simulate
from cos_export.simulation.trace import Trace
from targets import get
from targets.pytorch import PyTorchTarget
from targets.verification import verify

IMAGES = np.random.default_rng(3).normal(size=(7, 2, 5, 5)).astype(np.float32)


class Flipping(PyTorchTarget):
    """The reference with a few spikes the other way round."""

    name = "flipping"

    def run(self, bundle: Bundle, *arguments: Any, **options: Any) -> Trace:
        trace = super().run(bundle, *arguments, **options)
        spikes = {name: array.copy() for name, array in trace.spikes.items()}
        for step, sample in ((1, 1), (1, 2), (2, 0)):
            spikes["second"][step, sample, 3] ^= True
        return replace(trace, spikes=spikes)


def on_disk(array: np.ndarray) -> bool:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def outcome(folder: Path, calibration: PerSampleCalibration | None) -> tuple[bytes, list[dict[str, Any]], Trace]:
    targets = [get("pytorch", batch_size=2), get("onnxruntime", batch_size=3), Flipping(batch_size=7)]
    written, first = export_and_verify(
        two_layers(seed=2), folder, 3, golden=IMAGES, calibration=calibration, targets=targets
    )
    bundle = load(written.path)
    results = [first, verify(bundle, targets), verify(bundle, targets, samples=[5, 0, 2])]
    results.append(verify(bundle, targets, images=IMAGES[::-1].copy()))
    told = [result.to_dict() for result in results if result is not None]
    for result in told:
        for target in result["targets"].values():
            target.pop("seconds")
    return bundle.golden_path.read_bytes(), told, bundle.golden.trace


@pytest.mark.parametrize("calibration", [None, SRP(tau=3)], ids=["static", "srp"])
def test_it_is_what_it_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calibration: PerSampleCalibration | None
) -> None:
    expected_file, expected, _ = outcome(tmp_path / "memory", calibration)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr(sample_parts, "IN_MEMORY", 0)
    monkeypatch.setattr(sample_parts, "_AT_ONCE", 200)
    actual_file, actual, trace = outcome(tmp_path / "disk", calibration)
    assert actual_file == expected_file
    assert len(actual) == 4 and actual == expected
    assert actual[0]["targets"]["onnxruntime"]["passed"] and not actual[0]["targets"]["flipping"]["passed"]
    assert on_disk(trace.spikes["first"]) and (trace.states is None or on_disk(trace.states.v_init["first"]))
    assert list(temporary.iterdir()) == []


def test_states_in_either_order_of_the_axes_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = two_layers(seed=2)
    trace = simulate(network, IMAGES, 3, calibration=COS(rho=4), device="cpu")
    write_golden(tmp_path / "golden.npz", Golden(IMAGES, trace))
    arrays = dict(np.load(tmp_path / "golden.npz"))
    arrays["v_init/first"] = np.asfortranarray(arrays["v_init/first"])
    np.savez(tmp_path / "golden.npz", **arrays)
    monkeypatch.setattr(sample_parts, "IN_MEMORY", 0)
    monkeypatch.setattr(sample_parts, "_AT_ONCE", 200)
    states = read_golden(tmp_path / "golden.npz", network).trace.states
    assert states is not None and trace.states is not None
    for name, expected in trace.states.v_init.items():
        np.testing.assert_array_equal(states.v_init[name], expected)
    arrays["v_init/second"][6, 2] = np.nan
    np.savez(tmp_path / "golden.npz", **arrays)
    with pytest.raises(BundleError, match=r"'v_init/second'.*not finite"):
        read_golden(tmp_path / "golden.npz", network)


def test_potentials_and_states_are_those_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def recorded() -> tuple[Trace, SampleStates]:
        network = two_layers(seed=2)
        states = simulate(network, IMAGES, 3, calibration=COS(rho=4), device="cpu", batch_size=3).states
        assert states is not None
        trace = simulate(network, IMAGES, 3, states=states, device="cpu", batch_size=3, record_potentials=True)
        assert trace.states is states
        return trace, states

    (expected, expected_states) = recorded()
    monkeypatch.setattr(sample_parts, "IN_MEMORY", 0)
    (actual, states) = recorded()
    for one, other in (
        (actual.spikes, expected.spikes),
        (actual.potentials, expected.potentials),
        (states.v_init, expected_states.v_init),
    ):
        assert one.keys() == other.keys() and len(one) == 2
        for name, array in one.items():
            assert on_disk(array) and not on_disk(other[name])
            np.testing.assert_array_equal(array, other[name])
