"""The float64 run that a network's schedule asks for, and the margin of one neuron in it."""

from __future__ import annotations

import torch

from cos_export.errors import ParityError
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.parity.evaluation import Evaluation
from cos_export.parity.window_evaluation import WindowEvaluation
from cos_export.simulation.neuron import channels_last
from cos_export.simulation.trace import Trace

__all__ = ["evaluation_of", "margin_at"]


def evaluation_of(network: SpikingNetwork, steps: int) -> Evaluation:
    """The network in float64, by its schedule.

    Args:
        network: What was run.
        steps: T.
    """
    return WindowEvaluation(network, steps) if network.schedule == "layerwise" else Evaluation(network, steps)


def margin_at(
    network: SpikingNetwork,
    images: FloatArray,
    trace: Trace,
    layer: str,
    step: int,
    sample: int,
    neuron: tuple[int, ...],
) -> tuple[float, float]:
    """m(t) - theta of one neuron of a run, in the network's units, and its rounding bound (0 in integers).

    Args:
        network: What was run.
        images: (samples, ...), its inputs.
        trace: The run, with its spikes and the states that a per-sample method had set.
        layer: The neuron's layer.
        step: t, from 1.
        sample: Its index in the batch.
        neuron: Its index in the layer.
    """
    chunk = slice(sample, sample + 1)
    fired = {name: channels_last(torch.from_numpy(spikes[:, chunk])) for name, spikes in trace.spikes.items()}
    evaluation = evaluation_of(network, trace.steps)
    with torch.no_grad():
        for name, arriving in evaluation.walk(torch.from_numpy(images[chunk]), fired):
            if name == layer:
                charges = evaluation.charges(evaluation.neurons(name, trace.states, chunk), arriving, fired[name])
                charge = next(charge for charge in charges if charge.step == step)
                at = (0, *neuron)
                return float(charge.margin[at]), 0.0 if charge.bound is None else float(charge.bound[at])
    raise ParityError(f"The network has no layer {layer!r}.")
