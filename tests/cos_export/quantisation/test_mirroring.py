"""Copies of synapses in the place of one that turns the sign give what it gave, by the formula in float64."""

from __future__ import annotations

from pathlib import Path

import nir
import numpy as np
import pytest

from cos_export.nir_file import read_nir
from cos_export.quantisation import quantise
from cos_export.quantisation.mirroring import with_copies_of_mirrored
from cos_export.simulation import ann_logits

RNG = np.random.default_rng(0)
WEIGHT, OWN, READOUT = RNG.normal(size=(4, 3)), RNG.normal(size=4) / 4, RNG.normal(size=(2, 2, 4))
TURNED = np.array([0.3, -0.2, 0.4, 0.25])
IMAGES = RNG.random((32, 3), np.float32)


def _expected(own: float) -> np.ndarray:
    current = IMAGES @ WEIGHT.T + own * OWN
    upper, lower = np.clip(current / 0.7, 0, 1), np.clip((TURNED - current) / 0.7, 0, 1)
    return np.asarray(upper @ READOUT[0].T + lower @ READOUT[1].T)


@pytest.mark.parametrize("own", [0.0, 1.0])  # a synapse without a bias, and one with
def test_the_bias_behind_the_turned_sign_is_kept(own: float, tmp_path: Path) -> None:
    def neurons() -> nir.IF:
        return nir.IF(np.ones(4, np.float32), np.full(4, 0.7, np.float32), np.zeros(4, np.float32))

    def affine(weight: np.ndarray, bias: np.ndarray) -> nir.Affine:
        return nir.Affine(weight.astype(np.float32), bias.astype(np.float32))

    nodes = {
        "input": nir.Input({"input": np.array([3])}),
        "synapse": affine(WEIGHT, OWN) if own else nir.Linear(WEIGHT.astype(np.float32)),
        "turned": affine(-np.eye(4), TURNED),
        "upper": neurons(),
        "lower": neurons(),
        "of_upper": affine(READOUT[0], np.zeros(2)),
        "of_lower": affine(READOUT[1], np.zeros(2)),
        "output": nir.Output({"output": np.array([2])}),
    }
    edges = [("input", "synapse"), ("synapse", "upper"), ("synapse", "turned"), ("turned", "lower")]
    edges += [("upper", "of_upper"), ("lower", "of_lower"), ("of_upper", "output"), ("of_lower", "output")]
    nir.write(tmp_path / "model.nir", nir.NIRGraph(nodes, edges))
    network = read_nir(tmp_path / "model.nir", reset="subtract")
    copied = with_copies_of_mirrored(network)
    np.testing.assert_allclose(ann_logits(network, IMAGES, device="cpu"), _expected(own), atol=1e-5)
    np.testing.assert_allclose(ann_logits(copied, IMAGES, device="cpu"), _expected(own), atol=1e-5)
    integers = quantise(network, IMAGES, steps=4, per_channel=True, device="cpu")
    np.testing.assert_allclose(ann_logits(integers, IMAGES, device="cpu"), _expected(own), atol=0.05)
