"""`lowered`: a layer-wise network as a synchronous one of more steps, which any executor of the plain contract runs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cos_export.errors import InputError, NetworkError
from cos_export.lowering.arrivals import InputRange, constant_currents, current_bounds, without_biases
from cos_export.lowering.holding import Charged, charged, held
from cos_export.lowering.readout import integer_bias, with_readout
from cos_export.network import SpikingNetwork, check_network, check_steps
from cos_export.network.windows import windows
from cos_export.quantisation.integrality import check_integers
from cos_export.quantisation.intervals import Interval
from cos_export.quantisation.ranges import LARGEST_SUM, check_ranges
from cos_export.simulation.layerwise import check_layerwise

__all__ = ["lowered"]


def lowered(
    network: SpikingNetwork, steps: int | None = None, *, input_range: InputRange | None = None
) -> SpikingNetwork:
    """Makes a layer-wise network a synchronous one, whose spikes are the same in the same steps.

    A layer fires in its window alone because its potential is held down by B, more than any sum can lift it by:

        v_init(lowered) = v_init + sum over T of (the constant current + beta) - B
        v_bias(on + 1)  = B            where the window opens
        v_bias(on + T + 1) = -B        where it has closed

    for T' = T + (T - 1) D steps, of which layer l fires in on + 1 .. on + T (`cos_export.network.schedule.windows`).
    Biases of synapses are zero in it, for a potential may differ from position to position, and a per-step bias may
    not. The image is held for T steps, and the Input sends zero afterwards (`input_steps`): what a layer would go on
    integrating of it could not be taken back by anything that is the same for all images.

    The mean of the readout over all T' steps is the layer-wise one's over its window; before, it has no meaning.

    In integers everything is exact: every spike is the same. In float32 a sum beside B is rounded to about B 2^-24,
    which may flip a neuron that close to its threshold; B is chosen by channel, from the weights and `input_range`.

    Args:
        network: Of the layer-wise schedule.
        steps: T; by default what the network was calibrated for.
        input_range: The least and the largest number of the images of a float32 network, as the network takes them; by
            default those of pixels 0..1 after its normalisation. Beyond it nothing is promised.

    Returns:
        The network with `num_timesteps` = T' and `input_steps` = T.

    Raises:
        InputError: The network is synchronous, or what its images may hold is not known.
        NetworkError: A layer has no layer-wise meaning, the readout cannot be folded, or in integers a potential would
            leave the 24 bits; the message names the layer and the largest T that fits.
    """
    check_network(network)
    if network.schedule != "layerwise":
        raise InputError("The network is synchronous already: what is lowered is one of the layer-wise schedule.")
    if network.input_encoding == "frames":
        raise InputError("A network that is lowered holds its input for T steps, and this one takes frames.")
    steps = check_steps(steps, network)
    check_layerwise(network)
    check_integers(network)
    parts = _Parts(network, constant_currents(network), current_bounds(without_biases(network), input_range))
    when = windows(network, steps)
    total = when.last_step
    charges = parts.charges(steps)
    if network.quantisation is not None:
        _check_fits(parts, steps)
    result = replace(
        without_biases(network).with_neurons(
            {name: held(spec, charges[name], when.opens[name], steps, total) for name, spec in network.neurons.items()}
        ),
        schedule="synchronous",
        input_steps=None if steps == total else steps,
        num_timesteps=total,
        calibrated_timesteps=total,
    )
    result = with_readout(result, parts.constants[network.output_name], steps, total)
    if network.quantisation is not None:
        check_ranges(result, total)
    return result


@dataclass(frozen=True)
class _Parts:
    """A layer-wise network with what arrives at its layers and at the Output in each step."""

    network: SpikingNetwork
    constants: Mapping[str, NDArray[np.float64]]
    bounds: Mapping[str, Interval]

    def charges(self, steps: int) -> dict[str, Charged]:
        """What T steps charge each layer with."""
        integers = self.network.quantisation is not None
        return {
            name: charged(spec, self.constants[name], self.bounds[name], steps, integers=integers)
            for name, spec in self.network.neurons.items()
        }

    def first_beyond(self, steps: int) -> str | None:
        """The first layer, or the Output, whose numbers do not fit with T steps; None if all do."""
        charges = self.charges(steps)
        for name in self.network.layers:
            if not charges[name].fits:
                return name
        output, total = self.network.output_name, windows(self.network, steps).last_step
        bias = integer_bias(self.constants[output], steps, total)
        largest = steps * self.bounds[output].partial + total * np.abs(bias.every) + np.abs(bias.once)
        return output if float(largest.max()) >= LARGEST_SUM else None


def _check_fits(parts: _Parts, steps: int) -> None:
    name = parts.first_beyond(steps)
    if name is None:
        return
    # What T steps bring grows with T.
    fitting = bisect_left(range(1, steps), True, key=lambda fewer: parts.first_beyond(fewer) is not None)
    advice = f"{fitting} steps fit" if fitting else "not even one step fits"
    raise NetworkError(
        f"Layer {name!r}: over {steps} steps, and held down until its window opens, its numbers may leave the 24 bits "
        f"in which they are exact; {advice}. Run the layer-wise network itself, or one with smaller weights."
    )
