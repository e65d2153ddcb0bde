"""The netx back end: what is written, what lava-dl makes of it, and what it is refused for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
import torch
from integer_networks import in_fixed_point, integer_images
from random_networks import IF, affine, conv1d, conv2d, flatten, pool, residual, sequential

from cos_export.errors import InputError, NetworkError
from cos_export.network import SampleStates, SpikingNetwork
from cos_export.simulation import simulate
from targets.lava import LavaTarget, run_network, write_netx


def _small(network: SpikingNetwork, seed: int = 2) -> SpikingNetwork:
    """In integers; the odd seeds give each neuron a threshold of its own, which netx does not know."""
    return in_fixed_point(network, seed)


def convolutions() -> SpikingNetwork:
    rng = np.random.default_rng(1)
    layers = [
        conv2d(rng, 2, 4, (3, 2), stride=(2, 1), padding=(1, 2)),
        IF,
        pool(nir.SumPool2d, [2, 1]),
        pool(nir.SumPool2d, [1, 3]),
        conv2d(rng, 4, 6, (2, 3), padding=(1, 0), dilation=(2, 1), groups=2),
        IF,
        conv2d(rng, 6, 4, (3, 3), dilation=(1, 2), padding=2),
        IF,
    ]
    return _small(sequential(rng, (2, 8, 9), layers, condition=">"))


def pooled_at_the_end() -> SpikingNetwork:
    rng = np.random.default_rng(2)
    layers = [conv2d(rng, 2, 3), IF, pool(nir.SumPool2d, [2, 3]), flatten(), affine(rng, 12, 7), IF]
    return _small(sequential(rng, (2, 4, 6), layers))


def dense_from_the_image() -> SpikingNetwork:
    rng = np.random.default_rng(3)
    return _small(sequential(rng, (2, 3, 4), [flatten(), affine(rng, 24, 9), IF, nir.Linear(np.ones((5, 9))), IF]))


@pytest.mark.usefixtures("lava_environment")
@pytest.mark.parametrize("make", [convolutions, pooled_at_the_end, dense_from_the_image])
def test_every_spike_and_logit_is_that_of_the_reference(make: Callable[[], SpikingNetwork]) -> None:
    network = make()
    batch = integer_images(network, 3)
    expected = simulate(network, batch, 4, device="cpu")
    actual = run_network(network, batch, 4, options=LavaTarget("netx"))
    assert actual.spikes.keys() == expected.spikes.keys()
    for name, spikes in expected.spikes.items():
        assert 0.02 < spikes.mean() < 0.98, f"{name} would prove nothing"
        np.testing.assert_array_equal(actual.spikes[name], spikes, err_msg=name)
    np.testing.assert_array_equal(actual.logits, expected.logits)


def test_sums_are_folded_into_the_convolution_that_follows(tmp_path: Path) -> None:
    """What is written must compute the same from the plane that the window sums over, in PyTorch."""
    network = convolutions()
    write_netx(network, tmp_path / "network.hdf5")
    rng = np.random.default_rng(0)
    spikes = torch.from_numpy(rng.integers(0, 2, (2, *network.neurons["if1"].shape)).astype(np.float32))
    node = network.graph.nodes["conv2d4"]
    summed = torch.nn.functional.avg_pool2d(spikes, (2, 3), divisor_override=1)
    expected = torch.nn.functional.conv2d(
        summed, torch.from_numpy(node.weight), torch.from_numpy(node.bias), padding=(1, 0), dilation=(2, 1), groups=2
    )
    with h5py.File(tmp_path / "network.hdf5") as file:
        layer = file["layer/2"]
        assert layer["type"][()] == b"conv"
        actual = torch.nn.functional.conv2d(
            spikes,
            torch.from_numpy(layer["weight"][()]).float(),
            torch.from_numpy(layer["bias"][()]).float(),
            stride=tuple(layer["stride"][()]),
            padding=tuple(layer["padding"][()]),
            dilation=tuple(layer["dilation"][()]),
            groups=int(layer["groups"][()]),
        )
        assert tuple(layer["shape"][()]) == tuple(actual.shape[1:])
        start = layer["neuron/v_init"][()]
    assert torch.equal(actual, expected)
    np.testing.assert_array_equal(start, np.ceil(network.neurons["if5"].v_init) - 1)


def _refused(network: SpikingNetwork, folder: Path, message: str) -> None:
    path = folder / "refused.hdf5"
    with pytest.raises(NetworkError, match=message):
        write_netx(network, path)
    assert not path.exists()


def test_what_netx_cannot_express_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def chain(*layers: Any, shape: Any = (2, 4, 4), **choices: Any) -> SpikingNetwork:
        return in_fixed_point(sequential(rng, shape, layers, **choices), 0)

    _refused(in_fixed_point(residual(rng), 0), tmp_path, r"node 'input' \(Input\): several edges leave here.* shortcut")
    _refused(chain(conv2d(rng, 2, 3), IF, pool(nir.SumPool2d, 3), IF), tmp_path, "'sumpool2d2'.* that tile the plane")
    _refused(chain(conv2d(rng, 2, 3), IF, pool(nir.SumPool2d), IF), tmp_path, "'if3' .IF.: no synapse is in front")
    _refused(chain(conv2d(rng, 2, 3), conv2d(rng, 3, 3), IF), tmp_path, "'conv2d1'.* no neurons between them")
    _refused(chain(conv1d(rng, 2, 3), IF, shape=(2, 9)), tmp_path, "'conv1d0' .Conv1d.: it has no such layer")
    _refused(chain(conv2d(rng, 2, 3, (2, 2), padding="same"), IF), tmp_path, "padding differs before and after")
    for choices in ({"reset": "value"}, {"bias_steps": 1}, {"silenced": True}):
        _refused(chain(conv2d(rng, 2, 3), IF, **choices), tmp_path, "node 'if1' .IF.: netx knows no reset to a value")
    uneven = in_fixed_point(sequential(rng, (2, 4, 4), [conv2d(rng, 2, 3), IF]), 1)
    _refused(uneven, tmp_path, "node 'if1'.* different thresholds")
    plain = sequential(rng, (2, 4, 4), [conv2d(rng, 2, 3), IF])
    _refused(plain, tmp_path, "the network's numerics are float32")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weight", 128, "weights go from -?[0-9]+ to 128"),
        ("weight", 0.5, "weight holds numbers that are not integers"),
        ("bias", 32768, "biases go from -?[0-9]+ to 32768"),
        ("bias", -32769, "biases go from -32769"),
    ],
)
def test_numbers_beyond_what_netx_holds_are_named(tmp_path: Path, field: str, value: float, message: str) -> None:
    rng = np.random.default_rng(0)
    network = in_fixed_point(sequential(rng, (2, 4, 4), [conv2d(rng, 2, 3), IF]), 0)
    getattr(network.graph.nodes["conv2d0"], field).flat[0] = value
    _refused(network, tmp_path, rf"node 'conv2d0' \(Conv2d\): .*{message}")


def test_thresholds_potentials_and_currents_beyond_their_range_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    network = in_fixed_point(sequential(rng, (2, 4, 4), [conv2d(rng, 2, 3), IF]), 0)
    spec = network.neurons["if1"]
    large = np.full(spec.shape, 2.0**23, np.float32)
    _refused(network.with_neurons({"if1": replace(spec, threshold=large)}), tmp_path, "threshold is 8388608, and must")
    _refused(network.with_neurons({"if1": replace(spec, v_init=large)}), tmp_path, "initial potential is 8388608")
    wide = in_fixed_point(sequential(rng, (1000, 3, 3), [conv2d(rng, 1000, 3), IF]), 0)
    wide.graph.nodes["conv2d0"].weight[:] = 120
    _refused(wide, tmp_path, r"currents may go from -8640000 to 8640000, and Lava's wrap around at 8388608")
    wide.graph.nodes["conv2d0"].weight[:] = 1
    wide.graph.nodes["readout"].weight[:] = -1
    _refused(wide, tmp_path, "node 'readout' .Affine.: none of its weights is positive")


def test_states_of_each_sample_are_refused() -> None:
    network = pooled_at_the_end()
    states = SampleStates(v_init={"if1": np.zeros((1, 3, 4, 6), np.float32)})
    with pytest.raises(InputError, match=r'same potentials\. Use "batched"'):
        run_network(network, integer_images(network, 1), 1, states=states, options=LavaTarget("netx"))
