"""The neuron, COS and SRP for one neuron at a time, in Python floats, straight from their equations."""

from __future__ import annotations

from dataclasses import dataclass

EPSILON = 1e-3


@dataclass
class Scalar:
    """One neuron's run."""

    spikes: list[int]
    potentials: list[float]

    @property
    def count(self) -> int:
        return sum(self.spikes)


def run(currents: list[float], theta: float, v_init: float) -> Scalar:
    v, spikes, potentials = v_init, [], []
    for current in currents:
        m = v + current
        s = 1 if m >= theta else 0
        v = m - theta * s
        spikes.append(s)
        potentials.append(v)
    return Scalar(spikes, potentials)


def cos_potential(currents: list[float], theta: float, v_init: float, iterations: int) -> float:
    """v_init after `iterations` rounds; `currents` are those of the rho pre-simulation steps."""
    eps = EPSILON * theta
    first = run(currents, theta, v_init)
    v0 = v_init
    for k in range(1, iterations + 1):
        this = run(currents, theta, v0)
        fired = [v for v, s in zip(this.potentials, this.spikes, strict=True) if s]
        quiet = [v for v, s in zip(this.potentials, this.spikes, strict=True) if not s]
        if first.potentials[-1] < -(k - 1) * theta and first.count > k - 1 and fired:
            v0 -= max(theta, min(fired) + eps)
        elif first.potentials[-1] >= k * theta:
            largest = max(quiet) if quiet else -1000 * theta
            v0 += max(theta, theta + eps - largest)
    return v0


def srp_spikes(currents: list[float], theta: float, tau: int, steps: int) -> list[int]:
    """The spikes of the second run of one neuron whose currents do not depend on others."""
    first = run(currents[:tau], theta, theta / 2)
    second = run(currents[:steps], theta, theta / 2)
    return [0] * steps if first.potentials[-1] <= EPSILON * theta else second.spikes
