"""`ann_logits`: a run of the artificial network that a spiking one stands for."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from cos_export.bounds import MOST_BATCH
from cos_export.datasets import Images
from cos_export.device import full_precision, resolve_device
from cos_export.network import FloatArray, SpikingNetwork, check_network, held_images
from cos_export.network.workload import samples_at_once
from cos_export.progress import Progress, silent
from cos_export.simulation.activations import clipped_activation, unclipped_activation
from cos_export.simulation.finite import check_finite
from cos_export.simulation.neuron import NeuronTensors
from cos_export.simulation.program import Program
from cos_export.whole_number import whole_number

__all__ = ["ann_logits"]


def ann_logits(
    network: SpikingNetwork,
    images: Images,
    *,
    device: str | torch.device = "auto",
    batch_size: int = 64,
    unclipped: Collection[str] = (),
    progress: Progress = silent,
) -> FloatArray:
    """The logits of the artificial network that the spiking one stands for: (samples, classes).

    Each layer answers with its clipped (and, with levels, quantised) activation in place of spikes.

    Args:
        network: What to run.
        images: As for `simulate`; of frames the mean over the steps.
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch_size: Samples computed at once, as for `simulate`.
        unclipped: Layers that answer with max(z, 0) instead: the ReLU before a threshold was chosen for it.
        progress: Told of each batch.
    """
    check_network(network)

    def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        if name in unclipped:
            return unclipped_activation(name, neuron, currents)
        return clipped_activation(name, neuron, currents)

    array, program = held_images(network, images), Program(network, resolve_device(device))
    batch_size = samples_at_once(network, 1, whole_number("batch_size", batch_size, 1, MOST_BATCH), program.device)
    with torch.no_grad(), full_precision():
        whole: Tensor | None = None
        for start in range(0, len(array), batch_size):
            progress("running the artificial network", start, len(array))
            batch = torch.from_numpy(array[start : start + batch_size]).to(program.device)
            rows = program.propagate(batch, rule)[0]
            if whole is None:
                # Small results that are kept one by one leave no room for the next batch where this one has been.
                whole = rows.new_empty(len(array), *rows.shape[1:])
            whole[start : start + len(rows)] = rows
        progress("running the artificial network", len(array), len(array))
        logits = (torch.empty(0) if whole is None else whole) * program.readout_scale
        check_finite("The logits of the artificial network", logits)
    return logits.cpu().numpy()
