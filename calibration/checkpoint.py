"""A calibration between two of its rounds, as a file that it can go on from, to the same result bit for bit."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from cos_export.atomic_file import atomic_write
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork
from cos_export.network.graph import with_attributes
from cos_export.processes import is_main, same_everywhere
from cos_export.reading.state import read_state_file, state_digest
from cos_export.storage import storage_error

__all__ = ["Checkpoint"]

_FORMAT = "cos-export-calibration/1"
_FINISHED = "finished"
_AWAY = "Delete it to calibrate from the start."


class Checkpoint:
    """Where an interrupted calibration goes on from. Without a path nothing is kept and nothing is found.

    Every process of a distributed calibration reads the file, and the main one writes it: on several machines it must
    lie on a file system that all of them see.

    Attributes:
        path: The file, as safetensors, or None.
    """

    def __init__(self, path: Path | None = None, calibration: Mapping[str, Any] | None = None, every: float = 10.0):
        """Opens what an earlier run has left.

        Args:
            path: The file, which need not be there.
            calibration: What the calibration depends on, as JSON, from `calibration.identity`.
            every: Seconds between two writes.

        Raises:
            InputError: The file is not such a state, or that of another calibration.
        """
        self.path = path
        self._calibration = dict(calibration or {})
        self._every, self._written = every, time.monotonic()
        self._stage, self._done, self._tensors = "", 0, dict[str, Tensor]()
        if path is not None and path.exists():
            self._stage, self._done, self._tensors = _read(path, self._calibration)
        if path is not None:
            _check_agreement(path, (self._stage, self._done))

    def load(self, stage: str) -> tuple[int, dict[str, Tensor]] | None:
        """How much of `stage` is done and what it had then, or None if the run was not in that stage."""
        return (self._done, self._tensors) if stage == self._stage else None

    def save(self, stage: str, done: int, tensors: Mapping[str, Tensor]) -> None:
        """Keeps the state of `stage` if it is time to; whole or not at all, whenever the process is killed."""
        if time.monotonic() - self._written >= self._every:
            self._write(stage, done, tensors)

    def finish(self, before: SpikingNetwork, result: SpikingNetwork) -> None:
        """Keeps what the calibration came to, at once: the next run has it from `result`."""
        self._write(_FINISHED, 1, _changes(before, result))

    def result(self, before: SpikingNetwork) -> SpikingNetwork | None:
        """What the calibration of `before` came to, if an earlier run has finished it."""
        kept = self.load(_FINISHED)
        return None if kept is None else _with_changes(before, kept[1])

    def _write(self, stage: str, done: int, tensors: Mapping[str, Tensor]) -> None:
        if self.path is None or not is_main():
            return
        about = {"format": _FORMAT, "calibration": self._calibration, "stage": stage, "done": done}
        copies = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        about["digest"] = state_digest(about, copies)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(self.path, error) from error
        with atomic_write(self.path) as draft:
            draft.write_bytes(save(copies, metadata={"state": json.dumps(about, sort_keys=True)}))
        self._written = time.monotonic()


def _changes(before: SpikingNetwork, result: SpikingNetwork) -> dict[str, Tensor]:
    """The arrays of a calibrated network that are not those of the network before."""
    arrays = {}
    kinds = {"neuron": (before.neurons, result.neurons), "node": (before.graph.nodes, result.graph.nodes)}
    for kind, (old, new) in kinds.items():
        for name, entry in new.items():
            for key, value in vars(entry).items():
                if isinstance(value, np.ndarray) and value is not getattr(old[name], key):
                    arrays[f"{kind}/{key}/{name}"] = torch.from_numpy(value)
    return arrays


def _with_changes(before: SpikingNetwork, changes: Mapping[str, Tensor]) -> SpikingNetwork:
    neurons, nodes = dict(before.neurons), dict[str, nir.NIRNode]()
    for place, value in changes.items():
        kind, key, name = place.split("/", 2)
        changed: dict[str, Any] = {key: value.numpy()}
        if kind == "neuron":
            neurons[name] = replace(neurons[name], **changed)
        else:
            nodes[name] = with_attributes(nodes.get(name, before.graph.nodes[name]), **changed)
    result = before.with_neurons(neurons)
    return result.with_nodes(nodes) if nodes else result


def _read(path: Path, calibration: dict[str, Any]) -> tuple[str, int, dict[str, Tensor]]:
    about, tensors = read_state_file(path, "calibration", _FORMAT, _AWAY)
    held, here = about.get("calibration"), json.loads(json.dumps(calibration))
    if not isinstance(held, dict) or not isinstance(about.get("stage"), str) or not isinstance(about.get("done"), int):
        raise InputError(f"{path} is not a whole state of a calibration. {_AWAY}")
    other = [key for key in here | held if held.get(key) != here.get(key)]
    if other:
        listed = "\n  ".join(f"{key}: {held.get(key, 'absent')} there, {here.get(key, 'absent')} here" for key in other)
        raise InputError(f"{path} is the state of another calibration. {_AWAY}\n  {listed}")
    return about["stage"], about["done"], tensors


def _check_agreement(path: Path, reached: tuple[str, int]) -> None:
    """All processes must go on from the same place, or they would wait for each other for ever."""
    if not same_everywhere(reached):
        raise InputError(f"The processes do not see the same {path}. Put it where all of them can read it. {_AWAY}")
