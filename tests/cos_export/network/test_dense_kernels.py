"""Dense square kernels: the same spikes by NIR's equations, in files that the nir library opens."""

import nir
import numpy as np
import pytest
import random_networks as build
from nir_interpreter import interpret

from cos_export.errors import NetworkError
from cos_export.network.dense_kernels import with_dense_kernels
from cos_export.nir_file import write_nir

T = 3
RNG = np.random.default_rng(0)

LAYERS = {
    "groups": build.conv2d(RNG, 4, 8, groups=2),
    "depthwise": build.conv2d(RNG, 4, 4, groups=4, stride=2),
    "3 x 1": build.conv2d(RNG, 4, 4, (3, 1), padding=(1, 0)),
    "1 x 5": build.conv2d(RNG, 4, 4, (1, 5), padding=(0, 2)),
    "1 x 3 without padding": build.conv2d(RNG, 4, 4, (1, 3), padding=0),
    "groups of 3 x 1, strides": build.conv2d(RNG, 4, 4, (3, 1), groups=2, stride=(2, 3), padding=(1, 0)),
    "2 x 4, dilated": build.conv2d(RNG, 4, 4, (2, 4), padding=(1, 2), dilation=(2, 1)),
    "2 x 3, a stride that hides the last column": build.conv2d(RNG, 4, 4, (2, 3), padding=(0, 1), stride=2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_spikes_are_the_same_and_the_library_opens_the_file(tmp_path, name):
    network = build.sequential(np.random.default_rng(1), (4, 9, 8), [LAYERS[name], build.IF])
    dense = with_dense_kernels(network)
    assert write_nir(network, tmp_path / "model.nir")
    assert write_nir(dense, tmp_path / "dense.nir") == {}
    assert nir.read(tmp_path / "dense.nir").nodes.keys() == network.graph.nodes.keys()
    images = build.images(network, 6)
    frames = np.broadcast_to(images, (T, *images.shape))
    v_init = {layer: spec.v_init for layer, spec in network.neurons.items()}
    expected, actual = (
        interpret(tmp_path / file, frames, subtract=True, at_threshold=True, v_init=v_init)
        for file in ("model.nir", "dense.nir")
    )
    for layer, spikes in expected.spikes.items():
        np.testing.assert_array_equal(actual.spikes[layer], spikes)
        assert 0 < spikes.mean() < 1
    np.testing.assert_array_equal(actual.outputs, expected.outputs)


def test_along_a_line(tmp_path):
    network = build.sequential(np.random.default_rng(1), (4, 9), [build.conv1d(RNG, 4, 8, groups=2), build.IF])
    dense = with_dense_kernels(network)
    assert write_nir(dense, tmp_path / "dense.nir") == {}
    weight = dense.graph.nodes["conv1d0"].weight
    assert weight.shape == (8, 4, 3)
    np.testing.assert_array_equal(weight[:4, :2], network.graph.nodes["conv1d0"].weight[:4])
    assert not weight[:4, 2:].any() and not weight[4:, :2].any()


@pytest.mark.parametrize("layer", [build.conv2d(RNG, 4, 4), build.conv2d(RNG, 4, 4, (3, 1), padding="same")])
def test_what_needs_no_other_form_keeps_its_own(layer):
    network = build.sequential(np.random.default_rng(1), (4, 9, 8), [layer, build.IF])
    dense = with_dense_kernels(network).graph.nodes["conv2d0"]
    np.testing.assert_array_equal(dense.weight, layer.weight)


def test_a_kernel_that_no_padding_makes_square():
    network = build.sequential(np.random.default_rng(1), (4, 9, 8), [build.conv2d(RNG, 4, 4, (3, 2)), build.IF])
    with pytest.raises(
        NetworkError, match=r"'conv2d0' \(Conv2d\): a kernel of 3 x 2 cannot be written as a square one"
    ):
        with_dense_kernels(network)
