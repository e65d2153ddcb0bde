"""What a calibration depends on, as JSON: for a state to go on from, and for the manifest of a bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
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
    """A hash of all that a network computes with, in hexadecimal: arrays, geometry, wiring and how its neurons fire."""
    whole = (sorted(network.graph.edges), network.input_steps, network.quantisation)
    digest = hashlib.blake2b(repr(whole).encode(), digest_size=16)
    for name in network.order:
        for key, value in sorted(vars(network.graph.nodes[name]).items()):
            _add(digest, f"{name}/{key}", value)
    for name, spec in network.neurons.items():
        for field in fields(spec):
            _add(digest, f"{name}/{field.name}", getattr(spec, field.name))
    return digest.hexdigest()


def _add(digest: hashlib.blake2b, name: str, value: object) -> None:
    """Adds an array, or a number, word or tuple of them, to a hash; nothing of what else a node of NIR carries."""
    if isinstance(value, np.ndarray):
        digest.update(f"{name}/{value.shape}/{value.dtype}".encode())
        digest.update(np.ascontiguousarray(value).data)
    elif isinstance(value, int | float | str | tuple | np.generic):
        # A number that was read from a file is numpy's, and says the same.
        digest.update(f"{name}/{np.asarray(value).tolist()}".encode())
