"""COS: per-sample calibration of the initial potentials from the offset spike.

Hao et al., "Bridging the Gap between ANNs and SNNs by Calibrating Offset Spikes", ICLR 2023, arXiv 2302.10685.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from calibration.methods.method import PerSampleMethod, option
from cos_export.bounds import MOST_EXTRA_STEPS
from cos_export.errors import InputError
from cos_export.network import SampleStates
from cos_export.simulation import Observer
from cos_export.simulation.fixed_point import start_potentials
from cos_export.simulation.neuron import NeuronTensors, advance, current_at, integrate_and_fire, sample_blocks
from cos_export.simulation.presimulation import EPSILON, NEVER_SILENT, OffsetCorrection
from cos_export.simulation.program import Program

__all__ = ["COS", "PreSimulation", "calibrated_potentials", "presimulate"]

_CACHED = 1 << 21
"""Numbers in an array of all steps of a layer: one or two fill a processor's last cache, and so many take far longer
to compute than an operation takes to start."""


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
    count = torch.zeros_like(currents[0])
    residual, lowest, highest = _extremes(currents, rho, neuron, v_init, count)
    # Twice the largest number is infinite, and stays so when halved; every other comes back as it was.
    return PreSimulation(residual, count, lowest.mul_(2.0).mul_(0.5), highest.mul_(2.0).mul_(0.5))


def _extremes(
    currents: Tensor, rho: int, neuron: NeuronTensors, v_init: Tensor, count: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Residual, lowest and highest of a `PreSimulation`, the largest number in place of infinity; counts on request."""
    # Choosing among numbers by booleans takes five times as long as arithmetic. A spike is 0 or 1, and adding the
    # largest number there is to a potential puts it out of reach of a minimum; adding 0 changes no bit.
    far = torch.finfo(v_init.dtype).max
    potential = torch.empty_like(currents[0]).copy_(v_init)
    spike, other, lowest, highest = (torch.empty_like(potential) for _ in range(4))
    train = currents.unbind()
    for t in range(rho):
        advance(potential, current_at(train, t, neuron), neuron, spike)
        if count is not None:
            count += spike
        torch.sub(potential, spike, alpha=far, out=other if t else highest)
        if t:
            torch.maximum(highest, other, out=highest)
        spike -= 1
        torch.sub(potential, spike, alpha=far, out=other if t else lowest)
        if t:
            torch.minimum(lowest, other, out=lowest)
    return potential, lowest, highest


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
        # One spike at least is what a lowest potential tells of, too.
        count = torch.zeros_like(potential) if iterations > 1 else None
        residual, lowest, highest = _extremes(part, rho, neuron, potential, count)
        for k in range(1, iterations + 1):
            if k > 1:
                _, lowest, highest = _extremes(part, rho, neuron, potential, None)
            _shift(potential, k, residual, count, lowest, highest, neuron.threshold)
    return v_init


def _shift(
    v_init: Tensor, k: int, residual: Tensor, count: Tensor | None, lowest: Tensor, highest: Tensor, theta: Tensor
) -> None:
    """Iteration k in place, which overwrites the extremes. Whether a neuron is shifted is 0 or 1, a factor of it."""
    far, epsilon = torch.finfo(v_init.dtype).max, EPSILON * theta
    chosen, also = torch.lt(residual, -(k - 1) * theta, out=torch.empty_like(v_init)), torch.empty_like(v_init)
    chosen *= torch.lt(lowest, far, out=also)
    if count is not None:
        chosen *= torch.gt(count, k - 1, out=also)
    lowest += epsilon
    torch.maximum(lowest, theta, out=lowest)
    v_init.addcmul_(chosen, lowest, value=-1)
    torch.ge(residual, k * theta, out=chosen)
    # A neuron that is shifted up ends its run at or above k theta, or starts it higher than one that did: it has
    # fired, and the published maximum, taken over -1000 theta for each step that fired, is never below that.
    torch.maximum(highest, NEVER_SILENT * theta, out=highest)
    torch.sub(theta + epsilon, highest, out=highest)
    torch.maximum(highest, theta, out=highest)
    v_init.addcmul_(chosen, highest)


@dataclass(frozen=True)
class COS(PerSampleMethod):
    """Per-sample calibration: every layer is pre-simulated for `rho` steps on each input.

    Layer l is pre-simulated on the first rho steps of the calibrated spikes of layer l - 1, then run on all of them;
    if rho is larger than T, every layer runs rho steps and the readout is taken over the first T.
    One input costs rho + T steps. On a CPU a batch is run in parts that its cache holds: beside the potentials that
    it returns, the memory does not grow with the batch.
    """

    rho: int = option(4, "Extra steps per sample.", minimum=1, maximum=MOST_EXTRA_STEPS)
    iterations: int = option(
        1,
        "Offset spikes that may be corrected: 2 and 4 are the paper's x2 and x4.",
        minimum=1,
        maximum=MOST_EXTRA_STEPS,
    )
    name: ClassVar[str] = "cos"
    synchronous_only: ClassVar[str] = (
        "cos takes back spikes that a layer fired before all of its input had come, and under the layer-wise schedule "
        "none does: there is nothing to take back. Use half, or static."
    )

    @property
    def presimulation(self) -> OffsetCorrection:
        """The correction of offset spikes, layer after layer."""
        return OffsetCorrection(self.rho, self.iterations)

    @property
    def presimulated_steps(self) -> int:
        """Of each iteration rho, for it pre-simulates anew."""
        return self.rho * self.iterations

    def run(self, program: Program, images: Tensor, steps: int, observe: Observer) -> tuple[Tensor, SampleStates]:
        """Calibrates and runs a batch; see `cos_export.simulation.PerSampleCalibration.run`.

        Raises:
            InputError: A layer is reset to a value: the shift of the potential holds for the soft reset only.
        """
        horizon = max(steps, self.rho)
        # Laid out as the layers compute them: another order would cost as much as a layer's run.
        v_init = {
            name: torch.empty_like(neuron.v_init.expand(len(images), *neuron.v_init.shape), device="cpu")
            for name, neuron in program.neurons.items()
        }
        here = slice(0, 0)

        def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
            if neuron.v_reset is not None:
                raise InputError(f"COS needs the soft reset, and layer {name!r} is reset to a value.")
            asked = calibrated_potentials(currents, self.rho, neuron, self.iterations)
            shifted = start_potentials(asked, program.network.quantisation, strict=neuron.strict)
            run = integrate_and_fire(currents, horizon, replace(neuron, v_init=shifted), overwrite=True)
            observe(name, run._replace(spikes=run.spikes[:steps]))
            v_init[name][here] = shifted
            return run.spikes

        outputs = []
        for here in _parts(program, len(images), horizon):
            outputs.append(program.propagate(images[here], rule)[:steps])
        return torch.cat(outputs, 1), SampleStates(v_init={name: values.numpy() for name, values in v_init.items()})


def _parts(program: Program, samples: int, steps: int) -> list[slice]:
    """Parts of a batch, as equal as can be, of which a processor's cache holds what a layer sends; else all of it."""
    if program.device.type != "cpu":
        return [slice(0, samples)]
    widest = max(math.prod(spec.shape) for spec in program.network.neurons.values())
    count = min(samples, math.ceil(samples * steps * widest / _CACHED))
    return [slice(*bounds) for bounds in itertools.pairwise(samples * part // count for part in range(count + 1))]
