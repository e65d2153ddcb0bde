"""`layer_errors`: what each layer loses to the artificial network and why, and what that costs at the output."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cos_export.analysis.firing import Firing, quantised_counts
from cos_export.analysis.result import KINDS, LayerDivergences, LayerErrors, Output
from cos_export.analysis.split import SplitSums
from cos_export.bounds import MOST_BATCH
from cos_export.datasets import Dataset, Images, class_numbers
from cos_export.decisions import class_count, decisions
from cos_export.device import full_precision, resolve_device
from cos_export.divergence import divergence
from cos_export.errors import NetworkError
from cos_export.network import SampleStates, SpikingNetwork, check_images, check_network, check_steps
from cos_export.network.workload import samples_at_once
from cos_export.progress import Progress, silent
from cos_export.simulation import PerSampleCalibration, check_per_sample, simulate
from cos_export.simulation.activations import limit_activation, unclipped_activation
from cos_export.simulation.neuron import NeuronTensors
from cos_export.simulation.program import NeuronRule
from cos_export.whole_number import whole_number

__all__ = ["layer_errors"]


def layer_errors(
    network: SpikingNetwork,
    images: Images,
    steps: int | None = None,
    *,
    calibration: PerSampleCalibration | None = None,
    device: str | torch.device = "auto",
    batch_size: int = 64,
    progress: Progress = silent,
) -> LayerErrors:
    """Splits the error of each layer into clipping, levels and timing (`Split`), and measures its effect at the output.

    Of a layer that gets a current of mean z over T steps, with threshold theta:

        u = max(z / theta, 0)                                  unclipped
        c = min(u, 1)                                          clipped
        q = clip(floor(z T / theta + 1/2) / T, 0, 1)           quantised, QCFS at L = T
        s = n / T                                              spiking: n spikes in T steps

    Levels of the network's training are left aside: the reference is not quantised. What a calibration does beside
    weights and thresholds, its initial potentials and biases by step, counts as timing.

    In memory are one batch, three activations of every layer for it, and the T steps of a layer; it takes 5 runs of
    the network and 3 for each layer.

    Args:
        network: The network.
        images: As for `cos_export.simulate`; with the labels of a `Dataset` accuracies are measured, too.
        steps: T; by default what the network was calibrated for.
        calibration: A per-sample method, whose states for each image are those of its run of the whole network.
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch_size: Samples computed at once, as for `cos_export.simulate`; it bounds the memory.
        progress: Told of each batch.

    Raises:
        InputError: The images or numbers do not fit, the method does not do this schedule, or the network is one of a
            per-sample method that is not given.
        NetworkError: The network cannot be run, or an activation is beyond what float32 holds.
        UnavailableError: The device is not there.
    """
    check_network(network)
    check_per_sample(network, calibration)
    array, steps = check_images(network, images), check_steps(steps, network)
    where = resolve_device(device)
    batch_size = samples_at_once(network, steps, whole_number("batch_size", batch_size, 1, MOST_BATCH), where)
    labels, classes = None, class_count(network.output_shape[-1])
    if isinstance(images, Dataset) and images.labels is not None:
        labels = class_numbers(images.labels, len(array), classes)
    firing = Firing(network, steps, where)
    sums = _Sums(firing)
    with torch.no_grad(), full_precision():
        for start in range(0, len(array), batch_size):
            progress("comparing layers", start, len(array))
            batch = array[start : start + batch_size]
            states = None
            if calibration is not None:
                run = simulate(network, batch, steps, calibration=calibration, device=device, record_spikes=False)
                states = run.states
            _Batch(firing, torch.from_numpy(batch).to(firing.device), states, sums).add(
                None if labels is None else labels[start : start + batch_size]
            )
    progress("comparing layers", len(array), len(array))
    return sums.result(network.method if calibration is None else calibration.name, labelled=labels is not None)


class _Sums:
    """What is known after some of the batches."""

    def __init__(self, firing: Firing) -> None:
        self.firing = firing
        layers = firing.network.layers
        self.own = {name: SplitSums(firing.device) for name in layers}
        self.local = {name: SplitSums(firing.device) for name in layers}
        self.divergences: dict[tuple[str, str], float] = {}
        self.right = dict.fromkeys(KINDS, 0)
        self.samples = 0

    def diverge(self, kind: str, layer: str, answers: Tensor, logits: Tensor) -> None:
        """Adds a batch of the network that is called `kind`, of a layer or ("") of all."""
        if not bool(torch.isfinite(logits).all()):
            where = f" in layer {layer!r} alone" if layer else ""
            raise NetworkError(
                f"The logits of the {kind} network{where} are beyond what float32 holds: the weights are too large."
            )
        total = divergence(answers.cpu().numpy(), logits.cpu().numpy()) * len(logits)
        self.divergences[kind, layer] = self.divergences.get((kind, layer), 0.0) + total

    def result(self, method: str, *, labelled: bool) -> LayerErrors:
        """The means."""
        network = self.firing.network

        def mean(kind: str, layer: str = "") -> float:
            return self.divergences[kind, layer] / self.samples

        return LayerErrors(
            self.firing.steps,
            network.schedule,
            method,
            self.samples,
            {kind: Output(mean(kind), self.right[kind] / self.samples if labelled else None) for kind in KINDS},
            {name: sums.result() for name, sums in self.own.items()},
            {name: sums.result() for name, sums in self.local.items()},
            {
                name: LayerDivergences(*(mean(kind, name) for kind in ("unclipped", "alone", "repaired")))
                for name in network.layers
            },
            frozenset(name for name, spec in network.neurons.items() if spec.levels is not None),
        )


class _Batch:
    """One batch, through the four networks and those that differ from one of them in a single layer."""

    def __init__(self, firing: Firing, images: Tensor, states: SampleStates | None, sums: _Sums) -> None:
        self.firing, self.images, self.states, self.sums = firing, images, states, sums
        self.activations: dict[tuple[str, str], Tensor] = {}

    def add(self, labels: NDArray[np.int64] | None) -> None:
        """Adds all that is measured of the batch."""
        firing, sums = self.firing, self.sums
        logits = {
            "unclipped": self._activations(self._remembering("unclipped", unclipped_activation)),
            "clipped": self._activations(self._remembering("clipped", limit_activation)),
            "quantised": self._quantised(),
            "spiking": self._spiking(self._splitting),
        }
        answers = logits["clipped"]
        for kind in KINDS:
            sums.diverge(kind, "", answers, logits[kind])
            if labels is not None:
                sums.right[kind] += int((decisions(logits[kind].cpu().numpy()) == labels).sum())
        for layer in firing.network.layers:
            sums.diverge("unclipped", layer, answers, self._activations(_but(layer, unclipped_activation)))
            sums.diverge("alone", layer, answers, self._activations(_but(layer, self._fires_alone)))
            sums.diverge("repaired", layer, answers, self._spiking(self._repairing(layer)))
        sums.samples += len(self.images)

    def _activations(self, rule: NeuronRule) -> Tensor:
        program = self.firing.single
        return program.propagate(self.images, rule)[0] * program.readout_scale

    def _spiking(self, rule: NeuronRule) -> Tensor:
        return self.firing.logits(self.firing.spiking.propagate(self.images, rule))

    def _quantised(self) -> Tensor:
        steps, program = self.firing.steps, self.firing.window

        def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
            counts = quantised_counts(currents[0], neuron, steps)
            self.activations["quantised", name] = counts / float(steps)
            return counts.unsqueeze(0)

        return program.propagate(self.images, rule)[0] / float(steps) * program.readout_scale

    def _remembering(self, kind: str, rule: NeuronRule) -> NeuronRule:
        def remembering(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
            outputs = rule(name, neuron, currents)
            self.activations[kind, name] = outputs[0]
            return outputs

        return remembering

    def _splitting(self, name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        firing = self.firing
        total = firing.total(currents)
        mean = (total / float(firing.steps)).unsqueeze(0)
        unclipped, clipped = unclipped_activation(name, neuron, mean)[0], limit_activation(name, neuron, mean)[0]
        quantised = quantised_counts(total, neuron, firing.steps) / float(firing.steps)
        spikes, rate = firing.spikes(currents, firing.neuron(name, self.states))
        self.sums.local[name].add(unclipped, clipped, quantised, rate)
        # The activations of a layer are not looked at again.
        unclipped, clipped, quantised = (self.activations.pop((kind, name)) for kind in KINDS[:3])
        self.sums.own[name].add(unclipped, clipped, quantised, rate)
        return spikes

    def _fires_alone(self, name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        return self.firing.rate_of_constant(currents[0], self.firing.neuron(name, self.states)).unsqueeze(0)

    def _repairing(self, layer: str) -> NeuronRule:
        def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
            firing = self.firing
            if name != layer:
                return firing.spikes(currents, firing.neuron(name, self.states))[0]
            mean = (firing.total(currents) / float(firing.steps)).unsqueeze(0)
            return firing.outputs(limit_activation(name, neuron, mean)[0])

        return rule


def _but(layer: str, rule: NeuronRule) -> NeuronRule:
    """The clipped activation in all layers but one, which has another rule."""

    def chosen(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        return (rule if name == layer else limit_activation)(name, neuron, currents)

    return chosen
