"""NIR files that say they hold integers, and do not: read_nir refuses them, so that nothing is run in other numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from eight_bit_networks import in_integers, topology

from cos_export.errors import NetworkError
from cos_export.nir_file import read_nir, write_nir
from cos_export.nir_file.checking import check_nir

NO_INTEGERS = {
    "a fraction in a weight": ("conv2/weight", 0.25, r"'conv2': weight\[0, 0, 0, 0\] is .*must be an integer"),
    "a fraction in a bias": ("conv1/bias", -0.5, r"'conv1': bias\[0\]"),
    "a fraction in the readout": ("readout/weight", 1e-3, r"'readout': weight"),
    "a fraction in a threshold": ("if1/v_threshold", 0.25, r"'if1': threshold"),
    "a potential that may tie": ("if1/metadata/v_init", 0.5, r"'if1': v_init.*half-integer"),
    "a weight of 9 bits": ("conv2/weight", 400.0, r"'conv2': its weights must be integers of -128..127"),
}


def _add(path: Path, field: str, number: float) -> None:
    with h5py.File(path, "r+") as file:
        data: Any = file[f"node/nodes/{field}"]
        values = data[()]
        values.flat[0] = np.clip(values.flat[0], -100, 100) + number
        data[...] = values


@pytest.mark.parametrize(("field", "number", "message"), NO_INTEGERS.values(), ids=NO_INTEGERS)
def test_numbers_that_are_no_integers(tmp_path: Path, field: str, number: float, message: str) -> None:
    path = tmp_path / "model.nir"
    write_nir(in_integers(topology("residual"), 3), path)
    assert not any(finding.blocker for finding in check_nir(path).findings)
    _add(path, field, number)
    with pytest.raises(NetworkError, match=message):
        read_nir(path)
    assert any(finding.blocker for finding in check_nir(path).findings)


def test_the_check_says_that_sums_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "model.nir"
    write_nir(in_integers(topology("residual"), 3), path)
    _add(path, "conv1/bias", 2.0**24)
    [blocker] = [finding.blocker for finding in check_nir(path).findings if finding.blocker]
    assert "Node 'conv1': its sums may reach" in blocker and "exact below 2^24" in blocker


@pytest.mark.parametrize("kind", ["i1", ">i2", "<i8", ">f8", "<f2"])
def test_integers_of_every_type_are_the_same_numbers(tmp_path: Path, kind: str) -> None:
    path, network = tmp_path / "model.nir", in_integers(topology("residual"), 3)
    write_nir(network, path)
    with h5py.File(path, "r+") as file:
        weight = file["node/nodes/conv2/weight"][()]
        del file["node/nodes/conv2/weight"]
        file["node/nodes/conv2/weight"] = weight.astype(kind)
    actual: Any = read_nir(path).graph.nodes["conv2"]
    expected: Any = network.graph.nodes["conv2"]
    np.testing.assert_array_equal(actual.weight, expected.weight)
