import numpy as np
import pytest
import random_networks as build

from cos_export.bundle import Bundle
from cos_export.errors import InputError, TargetError, UnavailableError
from cos_export.network import SampleStates
from cos_export.nir_file import write_nir
from cos_export.simulation import simulate
from targets import pytorch
from targets.pytorch import PyTorchTarget


@pytest.fixture
def network():
    return build.residual(np.random.default_rng(0))


@pytest.fixture
def bundle(tmp_path, network):
    write_nir(network, tmp_path / "model.nir")
    return Bundle(tmp_path, {"normalisation": None})


def test_it_is_the_reference(bundle, network):
    images = build.images(network, 5)
    reports = []
    actual = PyTorchTarget("cpu", batch_size=2).run(bundle, images, 3, progress=lambda *args: reports.append(args[1:]))
    expected = simulate(network, images, 3)
    np.testing.assert_array_equal(actual.logits, expected.logits)
    for name in network.layers:
        np.testing.assert_array_equal(actual.spikes[name], expected.spikes[name])
    assert reports[-1] == (5, 5)


def test_without_spikes(bundle, network):
    assert PyTorchTarget("cpu").run(bundle, build.images(network, 2), 3, record_spikes=False).spikes == {}


def test_states(bundle, network):
    images = build.images(network, 2)
    states = SampleStates(v_init={"if1": build.dyadic(np.random.default_rng(1), 2, 4, 6, 5)})
    actual = PyTorchTarget("cpu").run(bundle, images, 3, states=states)
    np.testing.assert_array_equal(actual.logits, simulate(network, images, 3, states=states).logits)


def test_available():
    actual = PyTorchTarget("cpu").available()
    assert actual.ready
    assert actual.version.startswith("torch ")
    for device in ("cuda:99", "abacus"):
        actual = PyTorchTarget(device).available()
        assert not actual.ready
        assert device in actual.reason


def test_a_missing_device(bundle, network):
    with pytest.raises(UnavailableError, match="cuda:99"):
        PyTorchTarget("cuda:99").run(bundle, build.images(network, 1), 2)


def test_images_that_do_not_fit(bundle):
    with pytest.raises(InputError, match="takes images of shape"):
        PyTorchTarget("cpu").run(bundle, np.zeros((1, 3, 3), np.float32), 2)


def test_a_failure_of_torch_is_told(bundle, network, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(pytorch, "simulate", fail)
    with pytest.raises(TargetError, match="out of memory"):
        PyTorchTarget("cpu").run(bundle, build.images(network, 1), 2)
