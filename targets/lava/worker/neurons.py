"""The integrate-and-fire neurons of a stage, and the files that a stage writes."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from job import Job, Node
from layout import zeros

__all__ = ["Neurons", "Outputs", "Spikes"]

_LARGEST_POTENTIAL = 2**23 - 1


class Neurons:
    """A layer of neurons over a batch.

        m(t) = v(t-1) + I(t) + beta(t)                charge
        s(t) = 1 if m(t) >= theta else 0              fire (or m > theta, if the layer is strict)
        v(t) = m(t) - theta s(t)                      soft reset (or v_reset where s(t) = 1)
        v(0) = v_init

    Where a neuron is silent its spikes are dropped, and its potential goes on. Potentials of an integer type
    have 24 bits, as Loihi 2's have: m(t) stops at +-(2^23 - 1).

    Args:
        node: The layer.
        batch: Samples held at once.
        dtype: Of the potentials.
    """

    def __init__(self, node: Node, batch: int, dtype: np.dtype | type) -> None:
        self._node, self._dtype = node, np.dtype(dtype)
        self._integers = self._dtype.kind == "i"
        self._per_sample = frozenset(node.settings["per_sample"])
        threshold = self._static("threshold")
        uniform = bool((threshold == threshold.flat[0]).all())
        self._threshold = self._dtype.type(threshold.flat[0]) if uniform else self._laid_out(threshold)
        self._strict = node.settings["condition"] == ">"
        self._reset = self._laid_out(self._static("v_reset")) if node.settings["reset"] == "value" else None
        table = node.array("bias")
        self._bias = None if table is None else np.asarray(table, self._dtype)
        self._potential = zeros(batch, node.shape, self._dtype)
        self._subtracted = zeros(batch, node.shape, self._dtype)
        self._silent: np.ndarray | None = None

    def _static(self, key: str) -> np.ndarray:
        array = self._node.array(key)
        if array is None or array.shape != self._node.shape:
            found = "none" if array is None else array.shape
            raise ValueError(f"Node {self._node.name!r}: {key} must have shape {self._node.shape}, and has {found}.")
        return np.asarray(array, self._dtype)

    def _laid_out(self, array: np.ndarray) -> np.ndarray:
        """The array, its elements in memory in the order of the potentials', which it meets at each step."""
        laid_out = zeros(1, array.shape, array.dtype)
        laid_out[0] = array
        return laid_out

    def _of_samples(self, key: str, first: int, count: int) -> np.ndarray | None:
        array = self._node.array(key)
        if array is None:
            return None
        return array[first : first + count] if key in self._per_sample else array

    def begin(self, first: int, count: int) -> None:
        """Puts samples `first` .. `first + count - 1` at v_init. What lies past them in the batch is of no meaning."""
        self._potential[:count] = self._of_samples("v_init", first, count)
        silent = self._of_samples("silent", first, count)
        if silent is None:
            self._silent = None
        else:
            self._silent = zeros(len(self._potential), self._node.shape, bool)
            self._silent[:count] = silent

    def step(self, t: int, current: np.ndarray) -> np.ndarray:
        """One step.

        Args:
            t: The step, counted from 0.
            current: I(t), (batch, ...).

        Returns:
            The spikes that leave the layer, (batch, ...) of booleans.
        """
        self.charge(t, current)
        return self.fire()

    def charge(self, t: int | None, current: np.ndarray) -> None:
        """Adds a current, (batch, ...), and the bias of step t = 0, 1, ... if that counts now."""
        potential = self._potential
        if self._integers:
            current = current.astype(self._dtype)
        if self._bias is not None and t is not None and t < len(self._bias):
            current = current + self._per_channel(self._bias[t])
        np.add(potential, current, out=potential)
        if self._integers:
            np.clip(potential, -_LARGEST_POTENTIAL, _LARGEST_POTENTIAL, out=potential)

    def counts(self, current: np.ndarray, steps: int) -> np.ndarray:
        """How often each neuron fires in a window of T steps, having added up first.

            n = clip(floor(m / theta), 0, T),  m = v_init + sum over the window of I(t) + beta(t)

        With the strict comparison n = clip(ceil(m / theta) - 1, 0, T). What is silent fires in this count, too, and
        must not reach the next layers: see `audible`. The potentials stay at v_init.

        Args:
            current: The sum over the window of I(t), (batch, ...).
            steps: T.

        Returns:
            n, (batch, ...).
        """
        start = self._potential
        if self._bias is not None:
            whole = self._bias[:steps].astype(np.float64).sum(axis=0).astype(self._dtype)
            start = start + self._per_channel(whole)
        charged = start + (current.astype(self._dtype) if self._integers else current)
        if self._integers:
            np.clip(charged, -_LARGEST_POTENTIAL, _LARGEST_POTENTIAL, out=charged)
            counts: np.ndarray = np.clip(charged // self._threshold, 0, steps)
        else:
            ratio = charged / self._threshold
            counts = np.clip(np.ceil(ratio) - 1 if self._strict else np.floor(ratio), 0, steps)
        return counts

    def audible(self, fired: np.ndarray) -> np.ndarray:
        """What leaves the layer of what it fired: nothing where it is silent."""
        return fired if self._silent is None else fired & ~self._silent

    def _per_channel(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, *[1] * (self._potential.ndim - 2))

    def fire(self) -> np.ndarray:
        """The spikes that leave the layer now, (batch, ...) of booleans, each of which resets its neuron."""
        potential = self._potential
        fired = potential > self._threshold if self._strict else potential >= self._threshold
        if self._reset is None:
            np.multiply(fired, self._threshold, out=self._subtracted)
            potential -= self._subtracted
        else:
            np.copyto(potential, self._reset, where=fired)
        return self.audible(fired)


def _new_file(path: str, dtype: np.dtype | type, shape: tuple[int, ...]) -> np.ndarray:
    """A .npy file in memory. Its space is taken now: a full disk is an error here, and a crash later."""
    mapped = np.lib.format.open_memmap(path, "w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with Path(path).open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, Path(path).stat().st_size)
    return mapped


class Spikes:
    """Writes a layer's spikes to spikes_<index>.npy: (steps, samples, ceil(neurons / 8)), eight neurons to a byte."""

    def __init__(self, job: Job, node: Node) -> None:
        width = -(-math.prod(node.shape) // 8)
        self._file = _new_file(f"spikes_{node.index}.npy", np.uint8, (job.steps, job.samples, width))

    def write(self, t: int, first: int, count: int, spikes: np.ndarray) -> None:
        """Keeps what samples `first` .. fired at step `t`: the first `count` rows of `spikes`."""
        rows = spikes[:count].reshape(count, -1)
        self._file[t, first : first + count] = np.packbits(rows, axis=1)


class Outputs:
    """Writes what reaches the Output at each step to outputs.npy, (steps, samples, ...) of float32."""

    def __init__(self, job: Job, node: Node) -> None:
        self._file = _new_file("outputs.npy", np.float32, (job.steps, job.samples, *node.shape))

    def write(self, t: int, first: int, count: int, outputs: np.ndarray) -> None:
        """Keeps the readout's input of step `t` for samples `first` .., the first `count` rows of `outputs`."""
        self._file[t, first : first + count] = outputs[:count]
