"""`verify` does not trust the record that it compares targets with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from bundles import relist
from numpy.typing import NDArray
from planted_faults import chain, pictures
from small_networks import two_layers

from calibration import COS, SRP
from cos_export.bundle import Bundle, load
from cos_export.bundle.golden import Golden, write_golden
from cos_export.errors import BundleError, InputError
from cos_export.exporting import export
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.parity import verify
from cos_export.report.document import report_document
from cos_export.simulation import simulate
from targets import get, verification

Array = NDArray[Any]
IMAGES = np.random.default_rng(0).integers(-32, 33, (9, 2, 5, 5)).astype(np.float32) / 16


def altered(folder: Path, network: SpikingNetwork, images: Array, change: Callable[[Golden], Golden]) -> Bundle:
    """A bundle whose record was changed afterwards, with the manifest made to agree."""
    bundle = export(network, folder, 3, golden=images, labels=np.arange(len(images)) % 3)
    write_golden(bundle.golden_path, change(bundle.golden))
    relist(folder)
    return load(folder)


def spikes_inverted(golden: Golden) -> Golden:
    spikes = {name: ~value for name, value in golden.trace.spikes.items()}
    return replace(golden, trace=replace(golden.trace, spikes=spikes))


def one_spike(golden: Golden) -> Golden:
    spikes = {name: value.copy() for name, value in golden.trace.spikes.items()}
    spikes["second"][1, 2, 3] ^= True
    return replace(golden, trace=replace(golden.trace, spikes=spikes))


def logits_negated(golden: Golden) -> Golden:
    return replace(golden, trace=replace(golden.trace, logits=-golden.trace.logits))


def logits_off(golden: Golden) -> Golden:
    """By far less than a decision, and by more than rounding."""
    return replace(golden, trace=replace(golden.trace, logits=golden.trace.logits + np.float32(1e-3)))


def images_zeroed(golden: Golden) -> Golden:
    return replace(golden, images=np.zeros_like(golden.images))


def labels_changed(golden: Golden) -> Golden:
    """As if every decision had been right."""
    return replace(golden, labels=golden.trace.logits[-1].argmax(-1))


CHANGES = [spikes_inverted, one_spike, logits_negated, logits_off, images_zeroed, labels_changed]


@pytest.mark.parametrize("change", CHANGES)
def test_a_record_that_is_not_the_networks_fails(tmp_path: Path, change: Callable[[Golden], Golden]) -> None:
    bundle = altered(tmp_path / "b", two_layers(seed=1), IMAGES, change)
    result = verify(bundle, [get("onnxruntime")])
    assert not result.passed and result.to_dict()["passed"] is False
    *_, fault = result.record_faults
    assert fault.startswith("golden.npz") and ("labels" in fault) == (change is labels_changed)
    if change is one_spike:
        assert "at second, step 2, sample 2, neuron (3,)" in fault
    if change is not labels_changed:
        assert result["onnxruntime"].passed or change in (images_zeroed,), "the target itself is right"


@pytest.mark.parametrize("change", [spikes_inverted, logits_off])
def test_in_int8_a_record_is_exact(tmp_path: Path, change: Callable[[Golden], Golden]) -> None:
    bundle = altered(tmp_path / "b", chain(), pictures(), change)
    *_, fault = verify(bundle, [get("pytorch")]).record_faults
    assert "In int8 none may" in fault


def test_a_record_of_another_machine_may_differ_by_rounding(tmp_path: Path) -> None:
    def nudged(golden: Golden) -> Golden:
        logits = np.nextafter(golden.trace.logits, np.float32(np.inf))
        return replace(golden, trace=replace(golden.trace, logits=logits))

    bundle = altered(tmp_path / "b", two_layers(seed=1), IMAGES, nudged)
    result = verify(bundle, [get("onnxruntime")])
    assert result.passed and result.record_faults == ()


@pytest.mark.usefixtures("every_chart")
def test_labels_change_neither_the_parity_nor_the_report(tmp_path: Path) -> None:
    """They tell how many answers were right, and of the spikes nothing."""
    results = []
    for name, labels in (("with", np.arange(len(IMAGES)) % 3), ("without", None)):
        bundle = export(two_layers(seed=1), tmp_path / name, 3, golden=IMAGES, labels=labels)
        assert (bundle.golden.labels is None) == (labels is None) == ("golden_correct" not in bundle.manifest)
        result = verify(load(bundle.path), [get("onnxruntime"), get("pytorch")])
        parity = result.to_dict()
        for target in parity["targets"].values():
            del target["seconds"]
        results.append((parity, report_document(bundle, result), (bundle.path / "report.html").read_bytes()))
    assert results[0][0]["passed"] and results[0] == results[1]


@pytest.mark.parametrize("label", [-1, 5, 2**40])
def test_labels_that_the_readout_does_not_know_are_refused(tmp_path: Path, label: int) -> None:
    def beyond(golden: Golden) -> Golden:
        return replace(golden, labels=np.array([0] * 4 + [label] + [0] * 4))

    bundle = altered(tmp_path / "b", two_layers(seed=1), IMAGES, beyond)
    with pytest.raises(BundleError, match=f"'labels' in .*golden.npz must be class numbers.*sample 4 is {label}"):
        verify(bundle, [get("pytorch")])


def test_labels_need_a_readout_of_classes(tmp_path: Path) -> None:
    graph = nir.NIRGraph(
        {
            "input": nir.Input(np.array([2, 3, 3])),
            "conv": nir.Conv2d((3, 3), np.ones((2, 2, 1, 1), np.float32), 1, 0, 1, 1, np.zeros(2, np.float32)),
            "n": nir.IF(*(np.ones((2, 3, 3), np.float32) for _ in range(2)), np.zeros((2, 3, 3), np.float32)),
            "output": nir.Output(np.array([2, 3, 3])),
        },
        [("input", "conv"), ("conv", "n"), ("n", "output")],
        type_check=False,
    )
    network = SpikingNetwork(graph, {"n": NeuronSpec(np.ones((2, 3, 3), np.float32), np.zeros((2, 3, 3), np.float32))})
    images = np.ones((4, 2, 3, 3), np.float32)
    with pytest.raises(InputError, match=r"need a readout \(classes,\), and this network's has \(2, 3, 3\)"):
        export(network, tmp_path / "b", 2, golden=images, labels=[0, 1, 0, 1])


def with_states(golden: Golden, network: SpikingNetwork, kind: str, change: Callable[[Array], Array]) -> Golden:
    """The record with altered states, and the spikes and logits that the network has with them."""
    assert golden.trace.states is not None
    arrays = {name: change(value.copy()) for name, value in getattr(golden.trace.states, kind).items()}
    held = replace(golden.trace.states, **{kind: arrays})
    trace = simulate(network, golden.images, golden.trace.steps, states=held, device="cpu")
    return replace(golden, trace=replace(trace, rho=golden.trace.rho))


def swapped(array: Array) -> Array:
    return np.roll(array, 1, 0)


def raised(array: Array) -> Array:
    array[0].flat[0] += 5
    return array


def inverted(array: Array) -> Array:
    return ~array


STATES = {
    "swapped samples": (COS(rho=4), "v_init", swapped),
    "silent inverted": (SRP(tau=4), "silent", inverted),
    "never calibrated": (SRP(tau=4), "silent", np.zeros_like),
}


@pytest.mark.parametrize(("calibration", "kind", "change"), STATES.values(), ids=STATES)
def test_states_that_the_method_does_not_set_fail(
    tmp_path: Path, calibration: COS | SRP, kind: str, change: Callable[[Array], Array]
) -> None:
    """The spikes follow from the altered states, so that the local check has nothing to say against them."""
    bundle = export(two_layers(seed=1), tmp_path / "b", 3, golden=IMAGES, calibration=calibration)
    assert verification.verify(bundle, "onnxruntime").passed
    golden, network = bundle.golden, bundle.network
    write_golden(bundle.golden_path, with_states(golden, network, kind, change))
    relist(bundle.path)
    altered_bundle = load(bundle.path)
    assert verify(altered_bundle, [get("onnxruntime")]).passed, "taken as they are, where the method is not known"
    result = verification.verify(altered_bundle, "onnxruntime")
    assert not result.passed and result["onnxruntime"].passed
    [fault] = result.record_faults
    assert fault.startswith("golden.npz holds states of its samples that the bundle's method does not set")
    before, after = (getattr(bundle.trace.states, kind) for bundle in (golden, altered_bundle.golden))
    assert result.states_differing == sum(int((before[name] != after[name]).sum()) for name in network.layers)


def test_few_states_may_differ_by_rounding_in_float32(tmp_path: Path) -> None:
    """One neuron of 32 samples: 0.4 % of its layer. In integers it is none."""
    for name, network, images in (
        ("float32", two_layers(seed=1), np.tile(IMAGES, (4, 1, 1, 1))),
        ("int8", chain(), np.tile(pictures(), (4, 1, 1, 1))),
    ):
        bundle = export(network, tmp_path / name, 3, golden=images, calibration=COS(rho=4))
        golden = bundle.golden
        assert golden.trace.states is not None
        [layer, *_] = golden.trace.states.v_init
        share = 1 / golden.trace.states.v_init[layer].size
        assert share < 0.02

        def one(array: Array, *, layer: Array = golden.trace.states.v_init[layer]) -> Array:
            return raised(array) if array.shape == layer.shape and np.array_equal(array, layer) else array

        write_golden(bundle.golden_path, with_states(golden, bundle.network, "v_init", one))
        relist(bundle.path)
        result = verification.verify(load(bundle.path), "onnxruntime")
        assert result.states_differing == result.to_dict()["states_differing"] == 1
        assert result.passed == (name == "float32")


@pytest.mark.parametrize("calibration", [None, COS(rho=4), SRP(tau=4)])
def test_other_images_are_compared_with_a_reference_of_their_own(tmp_path: Path, calibration: COS | SRP | None) -> None:
    network = two_layers(seed=1)
    bundle = export(network, tmp_path / "b", 3, golden=IMAGES[:2], calibration=calibration)
    others = IMAGES[2:]
    result = verification.verify(bundle, ["onnxruntime", "pytorch"], images=others)
    trace = simulate(network, others, 3, calibration=calibration, device="cpu")
    assert result.passed and (result.samples, result.steps) == (7, 3)
    for target in result.values():
        for name, layer in target.comparison.layers.items():
            assert layer.spikes.tolist() == trace.spikes[name].sum(tuple(range(1, trace.spikes[name].ndim))).tolist()
    with pytest.raises(InputError, match=r"images of shape \(samples, 2, 5, 5\)"):
        verification.verify(bundle, "pytorch", images=others[:, :1])
