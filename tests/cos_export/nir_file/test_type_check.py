"""What the nir library says of our files is what we say it says."""

import nir
import numpy as np
import pytest
import random_networks as build

from cos_export.exporting import export
from cos_export.network.dense_kernels import with_dense_kernels
from cos_export.nir_file import read_nir, write_nir
from cos_export.nir_file.type_check import TypeCheckNotice, type_check_note

RNG = np.random.default_rng(0)

LAYERS = {
    "square": ([build.conv2d(RNG, 2, 4)], []),
    "groups": ([build.conv2d(RNG, 2, 4, groups=2)], ["conv2d0"]),
    "depthwise after a square one": (
        [build.conv2d(RNG, 2, 4), build.IF, build.conv2d(RNG, 4, 4, groups=4)],
        ["conv2d2"],
    ),
    "3 x 1": ([build.conv2d(RNG, 2, 4, (3, 1), padding=(1, 0))], ["conv2d0"]),
    "3 x 1, same": ([build.conv2d(RNG, 2, 4, (3, 1), padding="same")], []),
    "strides": ([build.conv2d(RNG, 2, 4, stride=(2, 1))], []),
    "dilations": ([build.conv2d(RNG, 2, 4, dilation=(1, 2))], []),
    "pools": ([build.pool(nir.SumPool2d, (2, 1)), build.pool(nir.AvgPool2d, 3, 2, 1)], []),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_nodes_that_the_library_refuses_are_named(tmp_path, name):
    layers, expected = LAYERS[name]
    network = build.sequential(np.random.default_rng(1), (2, 8, 6), [*layers, build.IF])
    refused = write_nir(network, tmp_path / "model.nir")
    assert list(refused) == expected
    assert nir.read(tmp_path / "model.nir", type_check=False).nodes.keys() == network.graph.nodes.keys()
    assert read_nir(tmp_path / "model.nir").shapes == network.shapes
    if expected:
        with pytest.raises(ValueError, match="type mismatch"):
            nir.read(tmp_path / "model.nir")
    else:
        nir.read(tmp_path / "model.nir")


def test_a_convolution_along_a_line(tmp_path):
    network = build.sequential(np.random.default_rng(1), (2, 9), [build.conv1d(RNG, 2, 4, groups=2), build.IF])
    assert list(write_nir(network, tmp_path / "model.nir")) == ["conv1d0"]


def test_the_manifest_and_a_notice_say_so_and_offer_the_dense_form(tmp_path):
    network = build.sequential(np.random.default_rng(1), (2, 8, 6), [*LAYERS["groups"][0], build.IF])
    with pytest.warns(TypeCheckNotice, match=r"\(conv2d0: groups.*type_check=False.*--dense-kernels") as caught:
        bundle = export(network, tmp_path / "out", golden=build.images(network, 2))
    assert list(bundle.manifest["refused_by_nir"]) == ["conv2d0"]
    assert str(caught[0].message) == type_check_note(bundle.manifest["refused_by_nir"])


@pytest.mark.filterwarnings("error::cos_export.nir_file.type_check.TypeCheckNotice")
def test_the_dense_form_needs_no_notice(tmp_path):
    network = build.sequential(np.random.default_rng(1), (2, 8, 6), [*LAYERS["groups"][0], build.IF])
    bundle = export(with_dense_kernels(network), tmp_path / "out", golden=build.images(network, 2))
    assert "refused_by_nir" not in bundle.manifest
    assert nir.read(bundle.nir_path).nodes.keys() == network.graph.nodes.keys()
