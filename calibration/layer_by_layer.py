"""The calibration images on their way through the network, layer by layer.

All images pass a layer before the next one is looked at, as the methods of the literature that calibrate one layer
after the other have it. The output of a layer is kept until its last reader has taken it, one bit for each neuron, step
and image, so each layer is computed from the one before it and never from the start: the cost is linear in the depth.
Of a program whose wires carry the sum over a window it is the number of spikes in it, in binary digits, and a synapse
is passed once for all steps.
What is kept on the host are the outputs of the layers that are still to be read, one or two of them in most networks:
in memory up to a budget, and beyond it in files of a temporary folder. On the device there are the currents of one
layer, where they fit, so that a method may walk through them as often as it likes; else one batch, computed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import repeat
from typing import NamedTuple

from torch import Tensor

from calibration.data import CalibrationData
from calibration.spike_store import MEMORY, Kept, SpikeStore
from cos_export.network import SpikingNetwork
from cos_export.simulation.neuron import NeuronTensors, channels_last
from cos_export.simulation.program import Program

__all__ = ["CalibratedLayer", "Currents", "layer_by_layer"]

Currents = Callable[[], Iterator[Tensor]]
"""Walks through what arrives at a layer, a batch (steps or 1, batch, ...) at a time; the same at each call."""

CURRENTS = 2**30
"""Bytes of a layer's currents that stay on the device, 1 GiB: 64 images of 3 x 224 x 224 in the first layer of a VGG-16
take 0.8 GB as sums over a window, and 10,000 of CIFAR-10 in the first layer of ResNet-20 0.7 GB."""


class CalibratedLayer(NamedTuple):
    """What a layer does once it is calibrated.

    Attributes:
        fire: From its currents, which it leaves as they are, to what it sends: its spikes, (steps, batch, ...) of 0
            and 1, or how many there are in the program's window, (1, batch, ...).
        amplitude: What its spike weighs, in units of what the network's weights were made for: () or (...).
    """

    fire: Callable[[Tensor], Tensor]
    amplitude: Tensor | None = None


def layer_by_layer(
    program: Program,
    data: CalibrationData,
    calibrate_layer: Callable[[str, NeuronTensors, Currents], CalibratedLayer],
    *,
    memory: int = MEMORY,
) -> None:
    """Lets `calibrate_layer` calibrate each layer on the outputs of the calibrated layers before it.

    Args:
        program: The network on a device. A window of T steps is for layers that add up all T before they fire.
        data: The images; with several processes each walks through its share of them.
        calibrate_layer: Called with each layer in order, its neurons and its currents over all images.
        memory: Bytes of spikes that this process holds in memory; the others lie in a temporary folder meanwhile.

    Raises:
        InputError: The spikes are more than that, and the temporary folder cannot hold them.
    """
    network = program.network
    sources = {name: _sources(network, name) for name in network.layers}
    last_reader = {source: name for name in network.layers for source in sources[name]}
    outputs: dict[str, _Outputs] = {}
    with SpikeStore(memory) as store:
        for name in network.layers:
            currents = _remembered(partial(_currents, program, data, name, outputs), CURRENTS)
            calibrated = calibrate_layer(name, program.neurons[name], currents)
            if name in last_reader:
                kept = [store.keep(calibrated.fire(batch), most=program.window) for batch in currents()]
                outputs[name] = _Outputs(kept, calibrated.amplitude)
            for source in sources[name]:
                if last_reader[source] == name and source in outputs:
                    for batch in outputs.pop(source).batches:
                        store.drop(batch)


class _Outputs(NamedTuple):
    """The output of a layer for every batch."""

    batches: list[Kept]
    amplitude: Tensor | None


def _sources(network: SpikingNetwork, name: str) -> set[str]:
    """The layers, and the Input, that a layer reads through synapses alone."""
    sources = set()
    for source in network.predecessors[name]:
        end = source in network.neurons or source == network.input_name
        sources |= {source} if end else _sources(network, source)
    return sources


def _currents(program: Program, data: CalibrationData, name: str, outputs: Mapping[str, _Outputs]) -> Iterator[Tensor]:
    sources = _sources(program.network, name)
    lengths = [len(outputs[source].batches) for source in sources if source in outputs]
    # Images are read again only by a layer that sees them.
    reads = program.network.input_name in sources
    images: Iterator[Tensor | None] = data.ordered() if reads else repeat(None, lengths[0])
    for number, batch in enumerate(images):
        yield program.currents(name, partial(_source_output, program, outputs, number, batch))


def _remembered(walk: Currents, most: int) -> Currents:
    """The same walk, which after its first time goes over what it came by then, if that takes up to `most` bytes."""
    batches: list[Tensor] = []
    complete, too_large = False, False

    def again() -> Iterator[Tensor]:
        nonlocal complete, too_large
        if complete or too_large:
            yield from batches if complete else walk()
            return
        batches.clear()
        size = 0
        for batch in walk():
            size += batch.nbytes
            too_large = too_large or size > most
            if too_large:
                batches.clear()
            else:
                batches.append(batch)
            yield batch
        complete = not too_large

    return again


def _source_output(
    program: Program, outputs: Mapping[str, _Outputs], number: int, images: Tensor | None, source: str
) -> Tensor:
    if source not in outputs and images is not None:
        return channels_last(images.to(program.device, program.dtype)).unsqueeze(0)
    kept = outputs[source]
    counts = kept.batches[number].read().to(program.device, program.dtype)
    return channels_last(counts if kept.amplitude is None else counts * kept.amplitude)
