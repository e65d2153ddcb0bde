"""Offset spikes, counted: how many spikes each neuron fires too few or too many, before and after COS.

Hao et al., "Bridging the Gap between ANNs and SNNs by Calibrating Offset Spikes", ICLR 2023, arXiv 2302.10685.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from calibration.data import CalibrationData, calibration_data
from calibration.methods.cos import calibrated_potentials, presimulate
from cos_export.bounds import MOST_BATCH, MOST_EXTRA_STEPS
from cos_export.datasets import Images
from cos_export.device import full_precision, resolve_device
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork, check_network, check_steps
from cos_export.network.workload import samples_at_once
from cos_export.processes import summed
from cos_export.progress import Progress, silent
from cos_export.simulation.activations import clipped_activation
from cos_export.simulation.neuron import NeuronTensors, integrate_and_fire
from cos_export.simulation.program import NeuronRule, Program
from cos_export.whole_number import whole_number

__all__ = ["LayerOffsets", "OffsetSpikes", "designed_spikes", "offset_spikes"]

WIDEST = 4
"""Offsets of more spikes than this are counted together."""


@dataclass(frozen=True)
class LayerOffsets:
    """What was counted in one layer after one number of iterations.

    Attributes:
        counts: How often psi was -k, ..., 0, ..., k; the first and the last count whatever lies beyond, too.
        no_offset: The share of neurons with psi = 0.
        mean_square: The mean of psi^2, in spikes^2.
        mse: The mean of (a / theta - spikes / T)^2, a being the activation of the artificial network.
    """

    counts: tuple[int, ...]
    no_offset: float
    mean_square: float
    mse: float


@dataclass(frozen=True)
class OffsetSpikes:
    """The statistics of a network.

    Attributes:
        steps: T.
        rho: Pre-simulation steps.
        samples: Images.
        psi: What the counts of each layer count: -k, ..., k.
        layers: By layer, and by iterations of COS, of which 0 is not a calibration.
    """

    steps: int
    rho: int
    samples: int
    psi: tuple[int, ...]
    layers: dict[str, dict[int, LayerOffsets]]

    @property
    def iterations(self) -> tuple[int, ...]:
        """The numbers of iterations that were compared."""
        return tuple(next(iter(self.layers.values())))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the iterations as strings."""
        layers = {
            name: {str(k): asdict(row) | {"counts": list(row.counts)} for k, row in rows.items()}
            for name, rows in self.layers.items()
        }
        return asdict(self) | {"psi": list(self.psi), "layers": layers}


def offset_spikes(
    network: SpikingNetwork,
    images: Images,
    steps: int | None = None,
    rho: int = 4,
    *,
    iterations: Sequence[int] = (0, 1, 2, 4),
    device: str | torch.device = "auto",
    batch_size: int = 64,
    progress: Progress = silent,
) -> OffsetSpikes:
    """Counts offset spikes over images, uncalibrated and after COS with each number of iterations.

    A neuron's offset is psi = C_designed - C_actual over the rho steps that COS pre-simulates. C_designed is what the
    artificial neuron asks for, given what has arrived in these steps, and is read from the residual potential of the
    run that starts from v_init, before any shift:

        C_designed = clip( spikes + floor( (v(rho) - v_init + theta / 2) / theta ), 0, rho )

    so that with v_init = theta / 2 a residual of k theta <= v(rho) < (k + 1) theta means psi = k. An activation lies
    between 0 and lambda: a neuron that fired at every step lacks no spike, and one that did not fire has none too many.
    C_actual are the spikes of the first rho steps of the run after the shift, on the very same currents. Each number of
    iterations has a walk through the network of its own, whose layers take the calibrated spikes of the layer
    below, as in `COS`; 0 iterations is the network as it is. Psi is thus the error that a layer makes itself, on its
    own input.

    The MSE also counts what the layers before it did wrong: (a / theta - spikes / T)^2, with the spikes of T steps and
    the activation a that the layer has in the artificial network, whose layers take activations. It is in
    units of theta^2, so that layers can be compared; with T = L steps, T^2 times it is the mean square of the
    difference in spikes to the artificial network.

    The sums are exact for psi and in float64 for the MSE; in memory are one batch, the activations of all layers for
    it, and the T steps of one layer. In a process group each process takes its share of the images, and all return the
    same.

    Args:
        network: The network.
        images: As for `cos_export.simulate`; labels are left aside.
        steps: T; by default what the network was calibrated for.
        rho: Pre-simulation steps.
        iterations: Of COS, each from 0 on.
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch_size: Samples computed at once, as for `cos_export.simulate`; it bounds the memory.
        progress: Told of each batch.

    Raises:
        InputError: The images or numbers do not fit, or a layer is reset to a value.
        UnavailableError: The device is not there.
    """
    check_network(network)
    if network.schedule == "layerwise":
        raise InputError(
            "An offset spike is one that a layer fires before all of its input has come, or too late for it. Under the "
            "layer-wise schedule a layer waits, so there are none to count: look at the synchronous network."
        )
    chosen = tuple(dict.fromkeys(iterations))
    rho = whole_number("rho", rho, 1, MOST_EXTRA_STEPS)
    if not chosen:
        raise InputError("iterations must hold a number of iterations, and is empty.")
    chosen = tuple(whole_number("iterations", count, 0, MOST_EXTRA_STEPS) for count in chosen)
    for name, spec in network.neurons.items():
        if spec.reset == "value":
            raise InputError(f"Offset spikes need the soft reset, and layer {name!r} is reset to a value.")
    steps, where = check_steps(steps, network), resolve_device(device)
    batch_size = samples_at_once(network, max(steps, rho), whole_number("batch_size", batch_size, 1, MOST_BATCH), where)
    data, program = calibration_data(network, images, batch_size), Program(network, where)
    tallies = {(name, k): _Tally(min(rho, WIDEST), program.device) for name in network.layers for k in chosen}
    with torch.no_grad(), full_precision():
        _count(program, data, steps, rho, chosen, tallies, progress)
    summed([tensor for tally in tallies.values() for tensor in (tally.counts, tally.squares, tally.errors)])
    layers = {name: {k: tallies[name, k].result() for k in chosen} for name in network.layers}
    return OffsetSpikes(steps, rho, len(data), tuple(range(-min(rho, WIDEST), min(rho, WIDEST) + 1)), layers)


class _Tally:
    """Running sums of one layer."""

    def __init__(self, widest: int, device: torch.device) -> None:
        self.widest = widest
        self.counts = torch.zeros(2 * widest + 1, dtype=torch.int64, device=device)
        self.squares = torch.zeros((), dtype=torch.int64, device=device)
        self.errors = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, psi: Tensor, errors: Tensor) -> None:
        """Takes in a batch: psi as int64, and the differences whose squares are meant."""
        bins = psi.clamp(-self.widest, self.widest) + self.widest
        # Counting bin by bin gives the same result on every device; a bincount on CUDA need not.
        self.counts += torch.stack([(bins == number).sum() for number in range(len(self.counts))])
        self.squares += psi.square().sum()
        self.errors += errors.square().sum(dtype=torch.float64)

    def result(self) -> LayerOffsets:
        """The shares and means."""
        counts = tuple(int(count) for count in self.counts.tolist())
        neurons = sum(counts)
        return LayerOffsets(
            counts, counts[self.widest] / neurons, float(self.squares) / neurons, float(self.errors) / neurons
        )


def _count(
    program: Program,
    data: CalibrationData,
    steps: int,
    rho: int,
    iterations: Sequence[int],
    tallies: dict[tuple[str, int], _Tally],
    progress: Progress,
) -> None:
    done = 0
    for images in data.ordered():
        progress("counting offset spikes", done, len(data))
        batch = images.to(program.device)
        activations: dict[str, Tensor] = {}
        program.propagate(batch, _remembering(activations))
        for k in iterations:
            program.propagate(batch, _counting(k, steps, rho, activations, tallies))
        done += len(images)
    progress("counting offset spikes", len(data), len(data))


def _remembering(activations: dict[str, Tensor]) -> NeuronRule:
    def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        activations[name] = clipped_activation(name, neuron, currents)
        return activations[name]

    return rule


def _counting(
    iterations: int, steps: int, rho: int, activations: dict[str, Tensor], tallies: dict[tuple[str, int], _Tally]
) -> NeuronRule:
    def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        shifted = calibrated_potentials(currents, rho, neuron, iterations)
        run = integrate_and_fire(currents, max(steps, rho), replace(neuron, v_init=shifted))
        psi = designed_spikes(currents, rho, neuron) - run.spikes[:rho].sum(0).double()
        rate = run.spikes[:steps].sum(0).double() / steps
        tallies[name, iterations].add(psi.long(), activations[name][0].double() - rate)
        return run.spikes

    return rule


def designed_spikes(currents: Tensor, rho: int, neuron: NeuronTensors) -> Tensor:
    """C_designed, the spikes that the artificial neuron asks for in rho steps: (batch, ...), float64.

        C_designed = clip( spikes + floor( (v(rho) - v_init + theta / 2) / theta ), 0, rho )

    Args:
        currents: I, (at least rho steps or 1, batch, ...).
        rho: Steps.
        neuron: The layer, which is run from its v_init.
    """
    # In float64 no quotient of two float32 numbers is rounded up to a whole one.
    start = neuron.v_init.expand(currents.shape[1:])
    first = presimulate(currents, rho, neuron, start)
    theta = neuron.threshold.double()
    centred = first.residual.double() - start.double() + theta / 2
    return (first.count.double() + torch.floor(centred / theta)).clamp(0, rho)
