"""Networks whose integers multiply, for synapses follow each other with no activation between."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import pytest
from random_networks import IF, conv2d, images, sequential
from stacked_synapses import NETWORKS, warmed

from calibration.thresholds import relu_thresholds
from cos_export.capturing import capture
from cos_export.exporting import export_and_verify
from cos_export.quantisation import check_ranges, quantise
from cos_export.quantisation.ranges import LARGEST_SUM
from cos_export.simulation import ann_logits, simulate
from targets import get

STEPS = 8


@pytest.mark.parametrize("name", NETWORKS)
def test_published_kinds_quantise_and_fire_alike(name: str, tmp_path: Path) -> None:
    model = warmed(name)
    images = np.random.default_rng(0).random((16, 3, 8, 8), np.float32) * 2 - 0.5
    network = capture(model, images[:1], thresholds=relu_thresholds(model, images, steps=STEPS, device="cpu"))
    integers = quantise(network, images, steps=STEPS, samples=4, device="cpu")
    assert all(entry.largest_sum < LARGEST_SUM for entry in check_ranges(integers, STEPS))
    run_on = [get("pytorch"), get("onnxruntime")]
    bundle, parity = export_and_verify(integers, tmp_path / "b", STEPS, golden=images[:4], targets=run_on, device="cpu")
    assert bundle.manifest["numerics"] == "int8" and parity is not None and parity.passed
    assert {key: target.mismatches for key, target in parity.items()} == {"pytorch": 0, "onnxruntime": 0}
    fired = np.concatenate([spikes.ravel() for spikes in bundle.golden.trace.spikes.values()])
    assert 0.02 < fired.mean() < 0.9
    # The integers stand for the same network: their logits go with those of float32.
    real = simulate(network, images[:4], STEPS, device="cpu").logits[-1]
    assert np.corrcoef(bundle.golden.trace.logits[-1].ravel(), real.ravel())[0, 1] > 0.9


def test_a_channel_between_synapses_that_nothing_weighs_has_a_scale() -> None:
    """As pruning leaves them: no error behind it can be, and what is before it is rounded all the same."""
    rng = np.random.default_rng(0)
    first, second = conv2d(rng, 2, 4), conv2d(rng, 4, 3)
    second.weight[:, 2] = 0
    network = sequential(rng, (2, 5, 5), [first, second, IF])
    array = images(network, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        integers = quantise(network, array, steps=2, device="cpu")
    expected, actual = (ann_logits(each, array, device="cpu") for each in (network, integers))
    np.testing.assert_allclose(actual, expected, atol=0.05 * np.abs(expected).max())


def test_what_leads_nowhere_is_left_out_of_the_integers() -> None:
    rng = np.random.default_rng(0)
    network = sequential(rng, (2, 5, 5), [conv2d(rng, 2, 3), IF, conv2d(rng, 3, 3), IF])
    array = images(network, 6)
    nodes = {**network.graph.nodes, "aside": conv2d(rng, 3, 2), "further": nir.Scale(np.ones((2, 5, 5), np.float32))}
    edges = [*network.graph.edges, ("if1", "aside"), ("aside", "further")]
    wider = replace(network, graph=nir.NIRGraph(nodes, edges, type_check=False))
    expected, actual = (quantise(each, array, steps=2, device="cpu") for each in (network, wider))
    assert actual.order == expected.order
    assert np.array_equal(simulate(actual, array, 2).logits, simulate(expected, array, 2).logits)
