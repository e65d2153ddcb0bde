"""COS: per-sample calibration of the initial potentials from the offset spike.

Hao et al., "Bridging the Gap between ANNs and SNNs by Calibrating Offset Spikes", ICLR 2023, arXiv 2302.10685.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from cos_export.errors import InputError
from cos_export.network import SampleStates
from cos_export.neuron import NeuronTensors, advance, current_at, integrate_and_fire, sample_blocks
from cos_export.propagation import Program
from cos_export.simulation import Observer

__all__ = ["COS", "PreSimulation", "calibrated_potentials", "presimulate"]

EPSILON = 1e-3
"""The margin by which a calibrated neuron stays away from its threshold, in units of the threshold."""

NEVER_SILENT = -1000.0
"""The published stand-in, in units of the threshold, for the largest potential of a neuron that fired at every step."""

_CACHED = 1 << 21
"""Numbers in an array of all steps of a layer, of which a processor's cache holds a few."""


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
    # Choosing among numbers by booleans takes five times as long as arithmetic. A spike is 0 or 1, and adding the
    # largest number there is to a potential puts it out of reach of a minimum; adding 0 changes no bit.
    far = torch.finfo(v_init.dtype).max
    potential = torch.empty_like(currents[0]).copy_(v_init)
    spike, other = torch.empty_like(potential), torch.empty_like(potential)
    count = torch.zeros_like(potential)
    lowest, highest = torch.full_like(potential, far), torch.full_like(potential, -far)
    for t in range(rho):
        advance(potential, current_at(currents, t, neuron), neuron, spike)
        count += spike
        torch.sub(potential, spike, alpha=far, out=other)
        torch.maximum(highest, other, out=highest)
        torch.sub(1.0, spike, out=spike)
        torch.add(potential, spike, alpha=far, out=other)
        torch.minimum(lowest, other, out=lowest)
    # Twice the largest number is infinite.
    lowest.add_(torch.eq(count, 0, out=spike), alpha=far)
    highest.sub_(torch.eq(count, rho, out=spike), alpha=far)
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
    v_init = torch.empty_like(currents[0]).copy_(neuron.v_init)
    for block in sample_blocks(currents):
        part, potential = currents[:, block], v_init[block]
        first = presimulate(part, rho, neuron, potential)
        for k in range(1, iterations + 1):
            run = first if k == 1 else presimulate(part, rho, neuron, potential)
            _shift(potential, k, first, run, neuron.threshold)
    return v_init


def _shift(v_init: Tensor, k: int, first: PreSimulation, run: PreSimulation, theta: Tensor) -> None:
    """Iteration k in place. Whether a neuron is shifted is 0 or 1, a factor of the shift."""
    far, epsilon = torch.finfo(v_init.dtype).max, EPSILON * theta
    chosen, also, shift = (torch.empty_like(v_init) for _ in range(3))
    torch.lt(first.residual, -(k - 1) * theta, out=chosen)
    chosen *= torch.gt(first.count, k - 1, out=also)
    chosen *= torch.lt(run.lowest, far, out=also)
    torch.clamp(run.lowest, max=far, out=shift)
    shift += epsilon
    torch.maximum(shift, theta, out=shift)
    v_init.addcmul_(chosen, shift, value=-1)
    torch.ge(first.residual, k * theta, out=chosen)
    torch.eq(run.highest, -torch.inf, out=also)
    torch.clamp(run.highest, min=-far, out=shift)
    shift.add_(also, alpha=far)
    shift.addcmul_(also, theta, value=NEVER_SILENT)
    torch.sub(theta + epsilon, shift, out=shift)
    torch.maximum(shift, theta, out=shift)
    v_init.addcmul_(chosen, shift)


@dataclass(frozen=True)
class COS:
    """Per-sample calibration: every layer is pre-simulated for `rho` steps on each input.

    Layer l is pre-simulated on the first rho steps of the calibrated spikes of layer l - 1, then run on all of them;
    if rho is larger than T, every layer runs rho steps and the readout is taken over the first T.
    One input costs rho + T steps. On a CPU a batch is run in parts that its cache holds: beside the potentials that
    it returns, the memory does not grow with the batch.

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
        v_init = {
            name: torch.empty(len(images), *spec.shape, dtype=program.dtype).numpy()
            for name, spec in program.network.neurons.items()
        }
        here = slice(0, 0)

        def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
            if neuron.v_reset is not None:
                raise InputError(f"COS needs the soft reset, and layer {name!r} is reset to a value.")
            shifted = calibrated_potentials(currents, self.rho, neuron, self.iterations)
            run = integrate_and_fire(currents, horizon, replace(neuron, v_init=shifted))
            observe(name, run._replace(spikes=run.spikes[:steps]))
            v_init[name][here] = shifted.cpu().numpy()
            return run.spikes

        outputs = []
        for here in _parts(program, len(images), horizon):
            outputs.append(program.propagate(images[here], rule)[:steps])
        return torch.cat(outputs, 1), SampleStates(v_init=v_init)


def _parts(program: Program, samples: int, steps: int) -> list[slice]:
    """Parts of a batch, as equal as can be, of which a processor's cache holds what a layer sends; else all of it."""
    if program.device.type != "cpu":
        return [slice(0, samples)]
    widest = max(math.prod(spec.shape) for spec in program.network.neurons.values())
    count = min(samples, math.ceil(samples * steps * widest / _CACHED))
    return [slice(*bounds) for bounds in itertools.pairwise(samples * part // count for part in range(count + 1))]
