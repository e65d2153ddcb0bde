import os
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import random_networks as build
from narrowing import present

from calibration import COS, SRP
from cos_export.bundle import Bundle
from cos_export.errors import BundleError, InputError, TargetError, UnavailableError
from cos_export.network import SampleStates
from cos_export.nir_file import write_nir
from cos_export.onnx_file import write_onnx
from cos_export.simulation import simulate
from targets.onnxruntime import OnnxRuntimeTarget


def _bundle(folder, network, steps=4, **options):
    folder.mkdir(exist_ok=True)
    write_nir(network, folder / "model.nir")
    write_onnx(network, folder / "model.onnx", steps, **options)
    return Bundle(folder, {"normalisation": None})


@pytest.fixture(scope="module")
def network():
    return build.residual(np.random.default_rng(0))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, network):
    return _bundle(tmp_path_factory.mktemp("bundle"), network)


@pytest.fixture(scope="module")
def per_sample(tmp_path_factory, network):
    """A graph that silences neurons of each sample by itself: all states that may be given are in it."""
    return _bundle(tmp_path_factory.mktemp("per_sample"), network, calibration=SRP(tau=3))


@pytest.fixture(scope="module")
def corrected(tmp_path_factory, network):
    return _bundle(tmp_path_factory.mktemp("corrected"), network, calibration=COS(rho=5))


def _assert_same(actual, expected):
    np.testing.assert_array_equal(actual.logits, expected.logits)
    assert set(actual.spikes) == set(expected.spikes)
    for name, spikes in expected.spikes.items():
        np.testing.assert_array_equal(actual.spikes[name], spikes)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_it_agrees_with_the_reference(bundle, network, batch_size):
    images = build.images(network, 7)
    reports = []
    target = OnnxRuntimeTarget(batch_size=batch_size, threads=1)
    actual = target.run(bundle, images, 4, progress=lambda *args: reports.append(args[1:]))
    _assert_same(actual, simulate(network, images, 4))
    assert reports[0] == (0, 7)
    assert reports[-1] == (7, 7)
    assert actual.total_steps == 4


def test_large_layers_are_run_with_fewer_samples_at_once(per_sample, network, monkeypatch):
    monkeypatch.setattr("cos_export.network.workload._HELD", 2 * 4 * 4 * 6 * 5)
    images, reports = build.images(network, 5), []
    v_init = {name: build.dyadic(np.random.default_rng(1), 5, 4, 6, 5) for name in network.layers}
    states = SampleStates(v_init=v_init, silent={})
    target = OnnxRuntimeTarget(threads=1)
    actual = target.run(per_sample, images, 4, states=states, progress=lambda *args: reports.append(args[1]))
    assert len(reports) > 3
    _assert_same(actual, simulate(network, images, 4, states=states))


def test_fewer_steps_are_cut(bundle, network):
    images = build.images(network, 3)
    _assert_same(OnnxRuntimeTarget(threads=1).run(bundle, images, 2), simulate(network, images, 2))


def test_more_steps_need_another_export(bundle, network):
    with pytest.raises(InputError, match=r"has 4 steps, and 9 were asked for.*--steps 9"):
        OnnxRuntimeTarget(threads=1).run(bundle, build.images(network, 1), 9)


def test_spikes_that_are_not_asked_for_are_not_collected(bundle, network):
    images, target = build.images(network, 3), OnnxRuntimeTarget(threads=1)
    actual = target.run(bundle, images, 4, record_spikes=False)
    assert actual.spikes == {}
    np.testing.assert_array_equal(actual.logits, simulate(network, images, 4).logits)


def test_states_of_each_sample(per_sample, network):
    rng, images = np.random.default_rng(1), build.images(network, 5)
    states = SampleStates(
        v_init={name: build.dyadic(rng, 5, 4, 6, 5, low=-16, high=16) for name in network.layers},
        silent={name: rng.random((5, 4, 6, 5)) < 0.4 for name in network.layers},
    )
    for batch_size in (2, 5):
        for record_spikes in (True, False):
            actual = OnnxRuntimeTarget(threads=1, batch_size=batch_size).run(
                per_sample, images, 4, states=states, record_spikes=record_spikes
            )
            _assert_same(actual, simulate(network, images, 4, states=states, record_spikes=record_spikes))
            np.testing.assert_array_equal(present(actual.states).v_init["if1"], states.v_init["if1"])


@pytest.mark.parametrize("record_spikes", [True, False])
def test_a_graph_sets_the_states_of_each_sample_by_itself(per_sample, corrected, network, record_spikes):
    images = build.images(network, 5)
    for bundle, method in ((per_sample, SRP(tau=3)), (corrected, COS(rho=5))):
        target = OnnxRuntimeTarget(threads=1, batch_size=2)
        assert target.presimulates(bundle)
        actual = target.run(bundle, images, 3, record_spikes=record_spikes)
        expected = simulate(network, images, 3, calibration=method)
        assert actual.rho == method.rho
        np.testing.assert_array_equal(actual.logits, expected.logits)
        if record_spikes:
            _assert_same(actual, expected)
            states, reference = present(actual.states), present(expected.states)
            for name in network.layers:
                np.testing.assert_array_equal(states.v_init[name], reference.v_init[name])
            assert states.silent.keys() == reference.silent.keys()
            for name, mask in reference.silent.items():
                np.testing.assert_array_equal(states.silent[name], mask)


def test_a_layer_of_which_nothing_is_given_keeps_its_own_states(per_sample, corrected, network):
    """As in the reference, and not what the graph would have set: it does not pre-simulate then."""
    images, target = build.images(network, 4), OnnxRuntimeTarget(threads=1)
    moved = {"if2": network.neurons["if2"].v_init + build.dyadic(np.random.default_rng(2), 4, 4, 6, 5)}
    masks = {"if1": np.random.default_rng(3).random((4, 4, 6, 5)) < 0.5}
    for bundle, states in ((corrected, SampleStates(v_init=moved)), (per_sample, SampleStates(moved, masks))):
        _assert_same(target.run(bundle, images, 4, states=states), simulate(network, images, 4, states=states))


def test_a_static_graph_does_not_presimulate(bundle):
    assert not OnnxRuntimeTarget(threads=1).presimulates(bundle)


def zeros(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (SampleStates(v_init={"if9": zeros(2, 4, 6, 5)}), r"no v_init for layer 'if9'.*'if1', 'if2'"),
        (
            SampleStates(v_init={"if1": np.zeros((4, 6, 5), np.float32)}),
            r"must have shape \(2, 4, 6, 5\), and has \(4, 6, 5\)",
        ),
        (SampleStates(v_init={"if1": zeros(3, 4, 6, 5)}), r"must have shape \(2, 4, 6, 5\)"),
    ],
)
def test_states_that_do_not_fit(per_sample, network, states, message):
    with pytest.raises(InputError, match=message):
        OnnxRuntimeTarget(threads=1).run(per_sample, build.images(network, 2), 4, states=states)


@pytest.mark.parametrize("kind", ["v_init", "silent"])
def test_a_static_graph_takes_no_states(bundle, network, kind):
    states = SampleStates(**{kind: {"if1": np.zeros((2, 4, 6, 5), np.float32 if kind == "v_init" else bool)}})
    with pytest.raises(InputError, match=rf"no {kind} for layer 'if1'.*no layer"):
        OnnxRuntimeTarget(threads=1).run(bundle, build.images(network, 2), 4, states=states)


def test_images_that_do_not_fit(bundle):
    with pytest.raises(InputError, match="takes images of shape"):
        OnnxRuntimeTarget().run(bundle, np.zeros((1, 3, 6, 5), np.float32), 4)


def test_a_session_is_kept_until_the_file_changes(tmp_path, network, monkeypatch):
    made = []
    original = onnxruntime.InferenceSession
    target, images = OnnxRuntimeTarget(threads=1), build.images(network, 2)
    bundle = _bundle(tmp_path / "bundle", network)

    def session(*arguments, **options):
        made.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    target.run(bundle, images, 4)
    target.run(bundle, images, 2)
    assert len(made) == 1
    target.run(bundle, images, 4, record_spikes=False)
    target.run(bundle, images, 4)
    assert len(made) == 2
    other = build.residual(np.random.default_rng(9))
    changed = _bundle(tmp_path / "bundle", other)
    os.utime(changed.onnx_path, ns=(1, 1))
    made.clear()
    _assert_same(target.run(changed, images, 4), simulate(other, images, 4))
    assert len(made) == 1
    assert len(target._sessions) == 1


def test_available():
    actual = OnnxRuntimeTarget().available()
    assert actual.ready
    assert actual.version.startswith(f"onnxruntime {onnxruntime.__version__} (")
    assert "CPUExecutionProvider" in actual.version


def test_unknown_providers_are_named_with_those_there_are(bundle, network):
    target = OnnxRuntimeTarget(providers=["AbacusExecutionProvider", "CPUExecutionProvider"])
    assert not target.available().ready
    with pytest.raises(UnavailableError, match=r"no AbacusExecutionProvider\. It has .*CPUExecutionProvider"):
        target.run(bundle, build.images(network, 1), 4)
    assert OnnxRuntimeTarget(providers="CPUExecutionProvider").available().ready


def test_a_provider_that_does_not_start_is_no_silent_fallback(bundle, network, monkeypatch):
    there = onnxruntime.get_available_providers()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*there, "GhostExecutionProvider"])
    with pytest.raises((UnavailableError, TargetError), match="Ghost"):
        OnnxRuntimeTarget(providers=["GhostExecutionProvider"]).run(bundle, build.images(network, 1), 4)


def test_without_onnxruntime(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    actual = OnnxRuntimeTarget().available()
    assert not actual.ready
    assert "Install onnxruntime" in actual.reason


def test_files_that_are_no_graphs(tmp_path, bundle, network):
    images = build.images(network, 1)
    broken = Bundle(tmp_path, {"normalisation": None})
    write_nir(network, broken.nir_path)
    with pytest.raises(BundleError, match="no ONNX graph at"):
        OnnxRuntimeTarget().run(broken, images, 4)
    broken.onnx_path.write_bytes(b"no graph")
    for record_spikes in (True, False):
        with pytest.raises((BundleError, TargetError), match=r"model\.onnx"):
            OnnxRuntimeTarget().run(broken, images, 4, record_spikes=record_spikes)


def test_a_failure_of_the_runtime_is_told(tmp_path, network):
    bundle = _bundle(tmp_path / "bundle", network)
    model = onnx.load(bundle.onnx_path)
    for entry in model.graph.initializer:
        if entry.name == "readout/weight":
            entry.CopyFrom(onnx.numpy_helper.from_array(np.zeros((3, 7), np.float32), entry.name))
    for entry in (*model.graph.value_info, *model.graph.output):
        entry.type.tensor_type.ClearField("shape")
    onnx.save(model, bundle.onnx_path)
    with pytest.raises((TargetError, BundleError), match="ONNX"):
        OnnxRuntimeTarget().run(bundle, build.images(network, 1), 4)


@pytest.mark.parametrize("bad", [{"threads": 0}, {"batch_size": 0}])
def test_bad_options(bad):
    with pytest.raises(InputError, match="at least 1"):
        OnnxRuntimeTarget(**bad)


def test_a_folder_whose_name_is_not_text_is_named(bundle, network, tmp_path):
    """ONNX Runtime's own error is a TypeError about arguments."""
    moved = tmp_path / os.fsdecode(b"b\xff")
    shutil.copytree(bundle.path, moved)
    with pytest.raises(InputError, match="is not a name of UTF-8, and ONNX Runtime opens no other"):
        OnnxRuntimeTarget(threads=1).run(Bundle(moved, {"normalisation": None}), build.images(network, 1), 4)
