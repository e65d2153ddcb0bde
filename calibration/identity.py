"""What a calibration depends on, as JSON: for a state to go on from, and for the manifest of a bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from calibration.data import CalibrationData
from cos_export.datasets import StoredImages
from cos_export.network import SpikingNetwork

__all__ = ["fingerprint", "identity"]


def identity(
    network: SpikingNetwork, data: CalibrationData, method: Mapping[str, Any], steps: int, device: torch.device
) -> dict[str, Any]:
    """What a calibration depends on, as JSON: a state of another one is not gone on from.

    The images of a torch data set are not read for it: their number and the first of them stand for them. Nor are those
    that do not fit in memory, for which their files stand.
    """
    if isinstance(data.images, StoredImages):
        digest = hashlib.blake2b(data.images.fingerprint.encode(), digest_size=16)
    else:
        images = data.images if isinstance(data.images, np.ndarray) else data.take([0]).numpy()
        digest = hashlib.blake2b(np.ascontiguousarray(images).data, digest_size=16)
    return {
        "network": fingerprint(network),
        "images": digest.hexdigest(),
        "samples": len(data),
        "batch_size": data.batch_size,
        "method": dict(method),
        "steps": steps,
        "schedule": network.schedule,
        "device": device.type,
    }


def fingerprint(network: SpikingNetwork) -> str:
    """A hash of the arrays of a network's nodes, of its thresholds, potentials and biases, in hexadecimal."""
    digest = hashlib.blake2b(digest_size=16)
    for name in network.order:
        for key, value in sorted(vars(network.graph.nodes[name]).items()):
            if isinstance(value, np.ndarray):
                digest.update(f"{name}/{key}/{value.shape}/{value.dtype}".encode())
                digest.update(np.ascontiguousarray(value).data)
    for name, spec in network.neurons.items():
        for key in ("threshold", "v_init", "bias"):
            value = getattr(spec, key)
            if value is not None:
                digest.update(f"{name}/{key}".encode())
                digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()
