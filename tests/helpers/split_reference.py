"""docs/analyze.md on any network, in float64, on the matrices of `cost_machine`: its four networks and their errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from cost_machine import Machine, in_step, in_window

Array = Any
Rule = Callable[[str, Array], Array]
"""(layer, currents (T, samples, neurons)) -> what it sends, likewise."""


Ran = tuple[dict[str, Array], dict[str, Array], Array]
"""Currents and outputs by layer, (T, samples, neurons), and mean logits."""


class Splitting:
    """What `layer_errors` measures.

    Args:
        machine: The network.
        images: (samples, ...).
        steps: T.
    """

    def __init__(self, machine: Machine, images: Array, steps: int) -> None:
        self.machine, self.steps = machine, steps
        self.images = np.asarray(images, np.float64).reshape(len(images), -1)
        specs = machine.network.neurons
        self.theta = {name: np.asarray(specs[name].threshold, np.float64).ravel() for name in machine.layers}

    def unclipped(self, name: str, currents: Array) -> Array:
        return self._held(np.maximum(currents.mean(0) / self.theta[name], 0))

    def clipped(self, name: str, currents: Array) -> Array:
        return self._held(np.clip(currents.mean(0) / self.theta[name], 0, 1))

    def quantised(self, name: str, currents: Array) -> Array:
        t = self.steps
        return self._held(np.clip(np.floor(currents.mean(0) * t / self.theta[name] + 0.5) / t, 0, 1))

    def spiking(self, name: str, currents: Array) -> Array:
        spec, theta = self.machine.network.neurons[name], self.theta[name]
        v = np.asarray(spec.v_init, np.float64).ravel()
        charges = currents + np.stack([self.machine.step_bias(name, t) for t in range(self.steps)])[:, None]
        heard = np.ones(theta.size) if spec.silent is None else ~np.ravel(spec.silent)
        if self.machine.network.schedule == "layerwise":
            return self._held(in_window(spec, v + charges.sum(0), self.steps) / self.steps * heard)
        train = []
        for charge in charges:
            spikes, v = in_step(spec, v + charge)
            train.append(spikes * heard)
        return np.stack(train)

    def alone(self, name: str, currents: Array) -> Array:
        return self._held(self.spiking(name, self._held(currents.mean(0))).mean(0))

    def run(self, rule: Rule, but: Mapping[str, Rule] | None = None) -> Ran:
        """The network with a rule for all layers but some, which have another."""
        machine = self.machine
        wires: dict[str, Array] = {}
        currents: dict[str, Array] = {}
        for name in machine.order:
            if name == machine.network.input_name:
                wires[name] = self._held(self.images)
                continue
            arriving = sum(wires[source] for source in machine.sources[name])
            if name in self.theta:
                currents[name] = arriving
                wires[name] = (but or {}).get(name, rule)(name, arriving)
            elif name == machine.output:
                wires[name] = arriving
            else:
                wires[name] = arriving @ machine.matrix[name].T + machine.bias[name]
        return currents, {name: wires[name] for name in self.theta}, wires[machine.output].mean(0)

    def _held(self, values: Array) -> Array:
        return np.broadcast_to(values, (self.steps, *values.shape))


def split(u: Array, c: Array, q: Array, s: Array) -> dict[str, float]:
    """The four parts and their sum, of outputs (T, samples, neurons)."""
    u, c, q, s = (values.mean(0) for values in (u, c, q, s))
    cross = 2 * ((c - u) * (q - c) + (c - u) * (s - q) + (q - c) * (s - q))
    squares = {"clipping": (c - u) ** 2, "levels": (q - c) ** 2, "timing": (s - q) ** 2, "total": (s - u) ** 2}
    return {name: float(values.mean()) for name, values in {**squares, "cross": cross}.items()}


def divergence(true: Array, other: Array) -> float:
    """The mean of KL(softmax(true) || softmax(other))."""
    total = 0.0
    for a, b in zip(true, other, strict=True):
        p, r = (np.exp(x - x.max()) / np.exp(x - x.max()).sum() for x in (a, b))
        total += sum(x * math.log(x / y) for x, y in zip(p, r, strict=True) if x > 0)
    return total / len(true)
