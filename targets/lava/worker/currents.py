"""The currents that reach a stage of the batched back end from its sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from job import Job, Node
from operations import Operation, create
from protocol import JobError
from stages import Stage

__all__ = ["Currents", "constant_current", "current_type", "largest_sums"]

_EXACT_IN_FLOAT32 = 2**24
_LARGEST_CURRENT = 2**30
"""Leaves room in 32 bits for the potential and the bias that are added."""


def _operation(node: Node, dtype: np.dtype | type, *, absolute: bool = False, window: int = 1) -> Operation:
    """The operation of a synapse, its arrays read from the job's folder; or that of their absolute values.

    Over a window of T steps its bias counts T times.
    """
    arrays = {key: array for key in node.arrays if (array := node.array(key)) is not None}
    if window > 1 and "bias" in arrays:
        arrays["bias"] = np.asarray(arrays["bias"], dtype) * np.asarray(window, dtype)
    if absolute:
        arrays = {key: np.abs(array) for key, array in arrays.items()}
    try:
        return create(node.kind, {**node.settings, "shape": node.shape}, arrays, dtype)
    except (KeyError, ValueError, TypeError) as error:
        raise JobError(f"Node {node.name!r} ({node.kind}) cannot be built: {error}") from error


class Currents:
    """The current I(t) that reaches a stage from its sources.

    Whatever depends on the Input alone is the same at every step, so it is computed once per group.

    Args:
        stage: Whose current.
        dtype: In which it is computed.
        window: Steps that it is the sum over. Spikes are numbers of spikes then, and the Input and every bias count as
            often as there are steps: synapses are linear, so one pass serves all.
    """

    def __init__(self, stage: Stage, dtype: np.dtype | type, window: int = 1) -> None:
        self._stage, self._dtype, self._window = stage, np.dtype(dtype), window
        spiking = {node.name for node in stage.sources}
        for node in stage.synapses:
            if spiking.intersection(node.inputs):
                spiking.add(node.name)
        self._operations = {node.name: _operation(node, dtype, window=window) for node in stage.synapses}
        self._fixed = [node for node in stage.synapses if node.name not in spiking]
        self._changing = [node for node in stage.synapses if node.name in spiking]
        self._constant = not spiking.intersection(stage.node.inputs)
        self._held: dict[str, np.ndarray] = {}

    def begin(self, images: np.ndarray | None) -> None:
        """Takes the next group's images, (batch, ...), or None if the Input does not reach this stage."""
        self._held = {}
        if images is not None:
            self._held = {self._stage.input_name: images if self._window == 1 else images * self._window}
        self._evaluate(self._fixed, self._held)
        if self._constant:
            self._held = {"": _sum(self._stage.node, self._held, self._dtype)}

    def step(self, spikes: Mapping[str, np.ndarray]) -> np.ndarray:
        """I(t) from the spikes s(t) of the sources, by their names: (batch, ...)."""
        if self._constant:
            return self._held[""]
        values = {**self._held, **spikes}
        self._evaluate(self._changing, values)
        return _sum(self._stage.node, values, self._dtype)

    def _evaluate(self, nodes: Sequence[Node], values: dict[str, np.ndarray]) -> None:
        for node in nodes:
            values[node.name] = self._operations[node.name](_sum(node, values, self._dtype))


def _sum(node: Node, values: Mapping[str, np.ndarray], dtype: np.dtype) -> np.ndarray:
    """What arrives at a node."""
    total = values[node.inputs[0]]
    for name in node.inputs[1:]:
        total = np.add(total, values[name], dtype=dtype)
    return total


def constant_current(stage: Stage, job: Job) -> np.ndarray:
    """What the biases of a stage's synapses alone bring to it: its current if every source is at zero.

    A bias goes through whatever follows it, so the chain is evaluated as it is, in float64.

    Returns:
        An array of the stage's shape.
    """
    shapes = {node.name: node.shape for node in job.nodes}
    currents = Currents(stage, np.float64)
    zeros = {node.name: np.zeros((1, *node.shape)) for node in stage.sources}
    currents.begin(np.zeros((1, *shapes[stage.input_name])) if stage.reads_input else None)
    return np.asarray(currents.step(zeros)[0])


def largest_sums(stage: Stage, job: Job) -> dict[str, float]:
    """By node, a bound for every number that it can come to, partial sums in any order included.

    It is reached if every source fires, every pixel is as large as the largest, and all signs agree.
    """
    entry = next(node for node in job.nodes if node.name == stage.input_name)
    dtype = np.dtype(np.float64)
    values = {node.name: np.ones((1, *node.shape)) for node in stage.sources}
    if stage.reads_input:
        images = entry.array("images")
        brightest = 0.0 if images is None else max(float(images.max()), -float(images.min()))
        values[entry.name] = np.full((1, *entry.shape), brightest)
    for node in (*stage.synapses, stage.node):
        arriving = _sum(node, values, dtype)
        values[node.name] = arriving if node is stage.node else _operation(node, dtype, absolute=True)(arriving)
    return {name: float(value.max()) for name, value in values.items()}


def current_type(stage: Stage, job: Job, window: int = 1) -> type:
    """The type in which a stage's currents are computed: float32, or in integers one that is exact in any order.

    Args:
        stage: The stage.
        job: What to run.
        window: Steps that a current is the sum over.

    Raises:
        JobError: They may not fit into 32 bits.
    """
    if not job.integers:
        return np.float32
    largest = window * max(largest_sums(stage, job).values())
    if largest >= _LARGEST_CURRENT:
        raise JobError(
            f"The current of node {stage.node.name!r} may reach {largest:.0f}, and integers of 32 bits leave room "
            f"for {_LARGEST_CURRENT - 1}."
        )
    return np.float32 if largest < _EXACT_IN_FLOAT32 else np.float64
