"""What the report shows, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cos_export.bundle import Bundle
from cos_export.network import SpikingNetwork
from cos_export.parity.verification import ParityResult
from cos_export.reading.limits import MAX_NAME

__all__ = ["parity_summary", "report_document"]

_SHOWN = (
    "num_timesteps",
    "rho",
    "total_timesteps",
    "method",
    "calibration",
    "calibrated_timesteps",
    "numerics",
    "neurons",
    "metrics",
    "costs",
    "parity",
    "layers",
    "versions",
)

_BINS = 60
"""Of the histograms of initial potentials."""


def report_document(bundle: Bundle, parity: ParityResult | None = None, *, notes: Sequence[str] = ()) -> dict[str, Any]:
    """All that the page says and draws, as numbers, strings, lists and dicts.

    Beside entries of the manifest:

        initial_potentials      edges: of the histograms' bins, in units of the threshold; counts: of neurons, by layer
        notes                   what the bundle does not say of its calibration, in words
        firing_rates            by layer, the share of neurons that fired at each step, over the golden inputs

    Args:
        bundle: The bundle, with its manifest but for the list of files.
        parity: What targets fired; if None, the manifest's entry, which tells of the export.
        notes: What the bundle does not say, for the reader.

    Raises:
        BundleError: The bundle is damaged.
    """
    network, trace = bundle.network, bundle.golden.trace
    document: dict[str, Any] = {key: bundle.manifest.get(key) for key in _SHOWN}
    # Of the network, for a manifest of before does not have it.
    document["calibrated_timesteps"] = network.calibrated_timesteps
    document["schedule"] = network.schedule
    document["normalisation"] = None if network.normalisation is None else network.normalisation.to_dict()
    document["classes"] = None if network.class_names is None else list(network.class_names)
    document["notes"] = list(notes)
    if parity is not None:
        document["parity"] = parity_summary(parity)
    document["initial_potentials"] = _histograms(network)
    document["firing_rates"] = {
        name: [float(trace.spikes[name][t].mean()) for t in range(trace.steps)] for name in network.layers
    }
    return document


def parity_summary(parity: ParityResult) -> dict[str, Any]:
    """The parity without its tables, which are for `verify --json`, and without what two equal runs do not share."""
    whole = parity.to_dict()
    for target in whole["targets"].values():
        for key in ("layers", "seconds"):
            target.pop(key)
    for refusal in whole["refused"].values():
        refusal["error"] = refusal["error"].split("\n")[0][:MAX_NAME]
    return whole


def _histograms(network: SpikingNetwork) -> dict[str, Any]:
    offsets = {name: network.neurons[name].v_init / network.neurons[name].threshold for name in network.layers}
    least = min(float(array.min()) for array in offsets.values())
    largest = max(float(array.max()) for array in offsets.values())
    edges = np.linspace(min(-0.25, least), max(1.25, largest), _BINS + 1)
    counts = {name: np.histogram(array, edges)[0].tolist() for name, array in offsets.items()}
    return {"edges": edges.tolist(), "counts": counts}
