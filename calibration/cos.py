"""COS: per-sample calibration of the initial potentials from the offset spike.

Hao et al., "Bridging the Gap between ANNs and SNNs by Calibrating Offset Spikes", ICLR 2023, arXiv 2302.10685.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from cos_export.errors import InputError
from cos_export.network import FloatArray, SampleStates
from cos_export.neuron import NeuronTensors, current_at, integrate_and_fire, step
from cos_export.propagation import Program
from cos_export.simulation import Observer

__all__ = ["COS", "PreSimulation", "calibrated_potentials", "presimulate"]

EPSILON = 1e-3
"""The margin by which a calibrated neuron stays away from its threshold, in units of the threshold."""

NEVER_SILENT = -1000.0
"""The published stand-in, in units of the threshold, for the largest potential of a neuron that fired at every step."""


@dataclass(frozen=True)
class PreSimulation:
    """What the calibration needs of rho steps, each of shape (batch, ...): never the steps themselves.

    Attributes:
        residual: v(rho).
        count: Spikes fired.
        lowest: min v(t) over the steps that fired, +inf if none did.
        highest: max v(t) over the steps that did not fire, -inf if all did.
    """

    residual: Tensor
    count: Tensor
    lowest: Tensor
    highest: Tensor


def presimulate(currents: Tensor, rho: int, neuron: NeuronTensors, v_init: Tensor) -> PreSimulation:
    """Runs a layer for `rho` steps from `v_init`, (batch, ...), and keeps running minima and maxima."""
    potential = v_init
    count = torch.zeros_like(v_init)
    lowest = torch.full_like(v_init, torch.inf)
    highest = torch.full_like(v_init, -torch.inf)
    for t in range(rho):
        spike, potential = step(potential, current_at(currents, t, neuron), neuron)
        fired = spike.bool()
        count += spike
        lowest = torch.where(fired, torch.minimum(lowest, potential), lowest)
        highest = torch.where(fired, highest, torch.maximum(highest, potential))
    return PreSimulation(potential, count, lowest, highest)


def calibrated_potentials(currents: Tensor, rho: int, neuron: NeuronTensors, iterations: int = 1) -> Tensor:
    """The initial potentials that correct offset spikes: (batch, ...).

    With v(rho) and the count of the first pre-simulation, iteration k = 1, 2, ... shifts

        v_init -= max(theta, min{v(t) : s(t) = 1} + eps)             where v(rho) < -(k-1) theta and count > k-1
        v_init += max(theta, theta + eps - max{v(t) : s(t) = 0})     where v(rho) >= k theta

    with the minimum and maximum of its own pre-simulation and eps = theta / 1000.

    Args:
        currents: I, (at least rho steps or 1, batch, ...).
        rho: Pre-simulation steps.
        neuron: The layer, whose v_init is where calibration starts.
        iterations: How many spikes may be corrected.
    """
    theta, start = neuron.threshold, neuron.v_init.expand(currents.shape[1:])
    v_init = start.clone()
    first = presimulate(currents, rho, neuron, start)
    for k in range(1, iterations + 1):
        run = first if k == 1 else presimulate(currents, rho, neuron, v_init)
        highest = torch.where(torch.isinf(run.highest), NEVER_SILENT * theta, run.highest)
        down = torch.maximum(theta.expand_as(v_init), run.lowest + EPSILON * theta)
        up = torch.maximum(theta.expand_as(v_init), theta + EPSILON * theta - highest)
        too_many = (first.residual < -(k - 1) * theta) & (first.count > k - 1) & torch.isfinite(run.lowest)
        too_few = first.residual >= k * theta
        v_init = torch.where(too_many, v_init - down, torch.where(too_few, v_init + up, v_init))
    return v_init


@dataclass(frozen=True)
class COS:
    """Per-sample calibration: every layer is pre-simulated for `rho` steps on each input.

    Layer l is pre-simulated on the first rho steps of the calibrated spikes of layer l - 1, then run on all of them;
    if rho is larger than T, every layer runs rho steps and the readout is taken over the first T.
    One input costs rho + T steps.

    Attributes:
        rho: Pre-simulation steps.
        iterations: 1 corrects one offset spike, 2 and 4 up to as many (the paper's x2 and x4).
    """

    rho: int = 4
    iterations: int = 1
    name: str = field(default="cos", init=False)

    def __post_init__(self) -> None:
        if self.rho < 1 or self.iterations < 1:
            raise InputError(f"COS needs rho >= 1 and iterations >= 1, not {self.rho} and {self.iterations}.")

    def run(self, program: Program, images: Tensor, steps: int, observe: Observer) -> tuple[Tensor, SampleStates]:
        """Calibrates and runs a batch; see `cos_export.simulation.PerSampleCalibration.run`.

        Raises:
            InputError: A layer is reset to a value: the shift of the potential holds for the soft reset only.
        """
        horizon = max(steps, self.rho)
        v_init: dict[str, FloatArray] = {}

        def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
            if neuron.v_reset is not None:
                raise InputError(f"COS needs the soft reset, and layer {name!r} is reset to a value.")
            shifted = calibrated_potentials(currents, self.rho, neuron, self.iterations)
            run = integrate_and_fire(currents, horizon, replace(neuron, v_init=shifted))
            observe(name, run._replace(spikes=run.spikes[:steps]))
            v_init[name] = shifted.cpu().numpy()
            return run.spikes

        outputs = program.propagate(images, rule)
        return outputs[:steps], SampleStates(v_init=v_init)
