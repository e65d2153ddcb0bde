"""Results of other runtimes: every form they may come in, and files that are refused before they are read."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from eight_bit_networks import in_integers, pictures, topology

import cos_export as ce
from cos_export.bundle import Bundle, load
from cos_export.bundle.results import golden_samples, read_results, write_inputs
from cos_export.errors import InputError
from cos_export.exporting import export
from cos_export.network import NeuronSpec, SpikingNetwork
from targets.results import RecordedResults

Arrays = dict[str, Any]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    network = in_integers(topology("residual"), 1)
    return export(network, tmp_path_factory.mktemp("bundles") / "net", 3, golden=pictures(network, 4))


def arrays_of(bundle: Bundle) -> Arrays:
    trace = bundle.golden.trace
    return {"logits": trace.logits, **{f"spikes/{name}": spikes for name, spikes in trace.spikes.items()}}


def one_neuron(folder: Path, name: str) -> Bundle:
    """A bundle of one neuron of that name, T = 3, two samples."""
    spec = NeuronSpec(np.ones(1, np.float32), np.full(1, 0.5, np.float32))
    nodes = {
        "input": nir.Input(np.array([1])),
        "synapse": nir.Linear(np.ones((1, 1), np.float32)),
        name: nir.IF(np.ones(1, np.float32), spec.threshold),
        "output": nir.Output(np.array([1])),
    }
    network = SpikingNetwork(nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False), {name: spec})
    return export(network, folder, 3, golden=np.array([[0.75], [0.25]], np.float32))


def written(path: Path, arrays: Arrays) -> Path:
    np.savez(path / "results.npz", **arrays)
    return path / "results.npz"


def packed(arrays: Arrays) -> Arrays:
    return {
        name: np.packbits(value.reshape(*value.shape[:2], -1), axis=-1) if value.dtype == bool else value
        for name, value in arrays.items()
    }


FORMS: dict[str, Callable[[Arrays], Arrays]] = {
    "booleans": lambda arrays: arrays,
    "floats": lambda arrays: {name: value.astype(np.float32) for name, value in arrays.items()},
    "bytes": lambda arrays: {k: v.astype(np.uint8) if v.dtype == bool else v.astype(float) for k, v in arrays.items()},
    "bits": packed,
    "bare names": lambda arrays: {name.removeprefix("spikes/"): value for name, value in arrays.items()},
    "with its inputs": lambda arrays: arrays | {"images": np.zeros(3), "steps": np.array(3), "v_init/if1": np.zeros(2)},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_run(bundle: Bundle, tmp_path: Path, form: str) -> None:
    path = written(tmp_path, FORMS[form](arrays_of(bundle)))
    result = ce.verify(bundle, [RecordedResults(path, bundle)])
    assert result.passed and result["results"].mismatches == 0 and result["results"].local_violations == 0
    assert result["results"].version == "results.npz"


def test_the_golden_run_itself_passes(bundle: Bundle) -> None:
    assert ce.verify(bundle, [RecordedResults(bundle.golden_path, bundle)]).passed


def test_one_spike_that_differs_is_found_with_its_place(bundle: Bundle, tmp_path: Path) -> None:
    arrays = {name: value.copy() for name, value in arrays_of(bundle).items()}
    arrays["spikes/if2"][1, 3, 2, 4, 1] ^= True
    parity = ce.verify(bundle, [RecordedResults(written(tmp_path, packed(arrays)), bundle)])["results"]
    assert not parity.passed and parity.mismatches == 1 and parity.local_violations >= 1
    first = parity.comparison.first
    assert first is not None
    assert (first.layer, first.step, first.sample, first.neuron) == ("if2", 2, 3, (2, 4, 1))


@pytest.mark.parametrize("value", [0.5, 2.0, np.nan])
def test_a_spike_that_is_no_spike_is_a_violation(bundle: Bundle, tmp_path: Path, value: float) -> None:
    arrays = arrays_of(bundle)
    arrays["spikes/if1"] = arrays["spikes/if1"].astype(np.float32)
    arrays["spikes/if1"][0, 0, 0, 0, 0] = value
    parity = ce.verify(bundle, [RecordedResults(written(tmp_path, arrays), bundle)])["results"]
    assert not parity.passed and parity.mismatches == 1 and parity.local_violations >= 1


def test_logits_that_differ_fail_in_integers(bundle: Bundle, tmp_path: Path) -> None:
    arrays = arrays_of(bundle)
    arrays["logits"] = np.nextafter(arrays["logits"], np.float32(np.inf))
    assert not ce.verify(bundle, [RecordedResults(written(tmp_path, arrays), bundle)]).passed


def some_of(bundle: Bundle, samples: list[int]) -> Arrays:
    """The results of a runtime that ran these golden inputs only, and says so."""
    return {name: value[:, samples] for name, value in arrays_of(bundle).items()} | {"samples": np.array(samples)}


@pytest.mark.parametrize("samples", [[0, 1], [3, 0], [2]])
def test_results_of_some_golden_inputs_are_judged_on_those(bundle: Bundle, tmp_path: Path, samples: list[int]) -> None:
    results = RecordedResults(written(tmp_path, some_of(bundle, samples)), bundle)
    assert results.golden_samples == tuple(samples)
    result = ce.verify(bundle, ["onnxruntime", results], samples=results.golden_samples)
    assert result.passed and result.golden_samples == tuple(samples) and result.samples == len(samples)
    neurons = sum(spec.v_init.size for spec in bundle.network.neurons.values())
    assert all(target.comparison.compared == 3 * len(samples) * neurons for target in result.values())
    with pytest.raises(InputError, match="4 are asked for"):
        ce.verify(bundle, [results])


def test_results_of_other_golden_inputs_than_they_say_fail(bundle: Bundle, tmp_path: Path) -> None:
    results = RecordedResults(written(tmp_path, some_of(bundle, [3, 0]) | {"samples": np.array([0, 3])}), bundle)
    wrong = ce.verify(bundle, [results], samples=results.golden_samples)["results"]
    first, last = (arrays_of(bundle)["spikes/if1"][:, sample] for sample in (0, 3))
    assert not wrong.passed and wrong.comparison.layers["if1"].mismatches.sum() == 2 * (first != last).sum() > 0
    with pytest.raises(InputError, match="holds a run of the golden inputs 0, 3, and others are asked for"):
        ce.verify(bundle, [results], samples=[0, 1])


@pytest.mark.parametrize("samples", [[0, 4], [-1], [1, 1], [], [[0], [1]], [0.0, 1.0], [True], [0, 1, 2, 3, 0]])
def test_samples_that_are_not_golden_inputs_are_refused(bundle: Bundle, tmp_path: Path, samples: list[Any]) -> None:
    path = written(tmp_path, arrays_of(bundle) | {"samples": np.array(samples)})
    with pytest.raises(InputError, match=r"'samples' in .* must .*which of the golden inputs were run"):
        golden_samples(path, bundle)


@pytest.mark.parametrize("samples", [[4], [-1], [1, 1], [], [0.5]])
def test_there_are_only_so_many_golden_inputs(bundle: Bundle, samples: list[Any]) -> None:
    with pytest.raises(InputError, match="golden input"):
        ce.verify(bundle, ["pytorch"], samples=samples)


def test_golden_inputs_and_other_images_are_not_asked_for_at_once(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give one of both"):
        ce.verify(bundle, ["pytorch"], samples=[0], images=bundle.golden.images)
    with pytest.raises(InputError, match="other images are to be judged"):
        RecordedResults(written(tmp_path, some_of(bundle, [0, 1])), bundle, 2)


def test_some_inputs_of_a_per_sample_method_are_run_from_their_own_states(tmp_path: Path) -> None:
    network = in_integers(topology("pooling"), 1)
    bundle = export(network, tmp_path / "cos", 2, golden=pictures(network, 3), calibration=ce.COS(rho=2))
    result = ce.verify(bundle, ["pytorch", "onnxruntime"], samples=[2, 0])
    assert result.passed and result.samples == 2


def without(name: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {key: value for key, value in arrays.items() if key != name}


def changed(name: str, change: Callable[[Any], Any]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {name: change(arrays.get(name))}


REFUSED: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "a layer is missing": (without("spikes/if1"), "lacks 'spikes/if1'"),
    "no logits": (without("logits"), "lacks 'logits'"),
    "nothing": (lambda arrays: {"steps": np.array(3)}, "lacks 'spikes/if1', 'spikes/if2', 'logits'"),
    "twice": (lambda arrays: arrays | {"if1": arrays["spikes/if1"]}, "layer 'if1' twice"),
    "unknown": (lambda arrays: arrays | {"spikes/if3": np.zeros(3)}, "holds 'spikes/if3'"),
    "fewer of all": (
        lambda arrays: {name: value[:, :3] for name, value in arrays.items()},
        r"\(3, 3, 3\)\. If some .* not all 4, 'samples' must list them",
    ),
    "fewer samples": (changed("spikes/if2", lambda spikes: spikes[:, :3]), "must be of shape"),
    "another order": (changed("spikes/if2", lambda spikes: spikes.swapaxes(0, 1)), r"\(3, 4, 4, 6, 5\)"),
    "fewer steps": (changed("logits", lambda logits: logits[-1:]), r"floats of shape \(3, 4, 3\)"),
    "integer logits": (changed("logits", lambda logits: logits.astype(np.int32)), "must be floats"),
    "packed as int8": (
        changed("spikes/if1", lambda spikes: np.packbits(spikes.reshape(3, 4, -1), -1).view(np.int8)),
        "eight spikes to a byte",
    ),
    "complex": (changed("logits", lambda logits: logits.astype(complex)), "plain booleans, integers or floats"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_by_name(bundle: Bundle, tmp_path: Path, name: str) -> None:
    change, message = REFUSED[name]
    path = written(tmp_path, change(arrays_of(bundle)))
    with pytest.raises(InputError, match=message):
        read_results(path, bundle.network, 3, 4)


def test_hostile_files_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    def refused(path: Path, message: str) -> None:
        with pytest.raises(InputError, match=message):
            read_results(path, bundle.network, 3, 4)

    refused(tmp_path / "missing.npz", "missing")
    path = tmp_path / "objects.npz"
    np.savez(path, **arrays_of(bundle) | {"steps": np.array([object()], object)})
    refused(path, "Python objects is refused")
    path = tmp_path / "text.npz"
    path.write_text("logits")
    refused(path, "not an .npz archive")
    path = written(tmp_path, arrays_of(bundle))
    claims = tmp_path / "claims.npz"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(claims, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.namelist():
            content = source.read(member)
            if member == "logits.npy":
                content = content.replace(b"(3, 4, 3)", b"(2**40,)")
            target.writestr(member, content)
    refused(claims, "damaged header|must be floats|takes")
    with pytest.raises(InputError, match="holds 3 steps of 4 samples, and 3 of 2 are asked for"):
        RecordedResults(path, bundle).run(bundle, bundle.golden.images[:2], 3)


def test_one_neuron_may_be_packed_or_not(tmp_path: Path) -> None:
    single = one_neuron(tmp_path / "single", "neuron")
    arrays = arrays_of(single)
    assert arrays["spikes/neuron"].any()
    for form in ("bytes", "bits", "booleans"):
        path = written(tmp_path, FORMS[form](arrays))
        trace = read_results(path, single.network, 3, 2)
        np.testing.assert_array_equal(trace.spikes["neuron"], arrays["spikes/neuron"])


def test_a_layer_with_the_name_of_an_input_array_needs_its_prefix(tmp_path: Path) -> None:
    bundle = one_neuron(tmp_path / "named", "images")
    arrays = arrays_of(bundle)
    path = written(tmp_path, arrays | {"images": bundle.golden.images})
    assert read_results(path, bundle.network, 3, 2).spikes["images"].shape == (3, 2, 1)


def test_the_inputs_are_those_of_the_golden_run(bundle: Bundle, tmp_path: Path) -> None:
    names = write_inputs(bundle, tmp_path / "inputs.npz")
    with np.load(tmp_path / "inputs.npz") as given:
        assert set(given.files) == set(names) == {"images", "steps", "integers"}
        np.testing.assert_array_equal(given["images"], bundle.golden.images)
        assert given["steps"] == 3 and given["integers"].dtype == np.int8
        assert bundle.network.quantisation is not None
        gain = np.float32(1 / bundle.network.quantisation.input_scale)
        np.testing.assert_array_equal(given["integers"], np.rint(given["images"] * gain).clip(-127, 127))


def test_some_inputs_come_with_their_numbers_which_may_be_handed_back(bundle: Bundle, tmp_path: Path) -> None:
    write_inputs(bundle, tmp_path / "inputs.npz", 2)
    with np.load(tmp_path / "inputs.npz") as given:
        np.testing.assert_array_equal(given["images"], bundle.golden.images[:2])
        results = {name: value[:, :2] for name, value in arrays_of(bundle).items()} | dict(given)
    assert golden_samples(written(tmp_path, results), bundle) == (0, 1)
    with pytest.raises(InputError, match="at most 4"):
        write_inputs(bundle, tmp_path / "inputs.npz", 5)


def test_the_inputs_of_a_per_sample_method_hold_its_states(tmp_path: Path) -> None:
    network = in_integers(topology("pooling"), 1)
    bundle = export(network, tmp_path / "cos", 2, golden=pictures(network, 2), calibration=ce.COS(rho=2))
    names = write_inputs(load(bundle.path), tmp_path / "inputs.npz")
    assert {f"v_init/{layer}" for layer in network.layers} <= set(names)
