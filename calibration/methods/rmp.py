"""RMP: soft reset with threshold balancing, from a potential of zero.

Han et al., "RMP-SNN: Residual Membrane Potential Neuron for Enabling Deeper High-Accuracy and Low-Latency Spiking
Neural Network", CVPR 2020. The balancing is that of Sengupta et al., "Going Deeper in Spiking Neural Networks: VGG and
Residual Architectures", Frontiers in Neuroscience 2019.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from calibration.layer_by_layer import CalibratedLayer, Currents, layer_by_layer
from calibration.methods.method import CalibrationRun, StaticMethod, option
from cos_export.bounds import MOST_EXTRA_STEPS
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork
from cos_export.network.reparametrisation import with_thresholds
from cos_export.network.wiring import is_wiring, turns_sign
from cos_export.numerics import FLOAT32
from cos_export.processes import highest
from cos_export.simulation.neuron import NeuronTensors, integrate_and_fire
from cos_export.simulation.program import Program

__all__ = ["RMP"]

STAGE = "balancing the thresholds"


@dataclass(frozen=True)
class RMP(StaticMethod):
    """Threshold balancing on the calibration images, one threshold for each layer, and v_init = 0.

    Layer by layer, from the spikes of the balanced layers before it,

        theta = max of I(t) over the layer's neurons, all images and t = 1..max(T, horizon)

    so that no current is more than one spike can carry away. The amplitude of a spike follows the threshold (see
    `cos_export.network.reparametrisation.with_thresholds`), so the layer stands for its activation clipped at the new
    theta, without levels. A layer that no current drives above zero keeps its threshold.

    From v_init = 0 few neurons fire in the first steps, so the largest currents come late, and the published run is
    long: hence the horizon.
    """

    horizon: int = option(
        32, "Steps at least in which the largest current is looked for.", minimum=1, maximum=MOST_EXTRA_STEPS
    )
    name: ClassVar[str] = "rmp"
    synchronous_only: ClassVar[str] = (
        "rmp raises thresholds until no step brings more than one spike can carry away, and a layer-wise neuron is not "
        "charged step by step: use half, or static with --tune threshold."
    )
    needs_data: ClassVar[bool] = True
    depends_on_steps: ClassVar[bool] = True

    def refusal(self, numerics: str) -> str:
        """Weights of integers cannot be scaled."""
        if numerics == FLOAT32:
            return ""
        return (
            f"rmp balances thresholds by scaling the weights behind them, and weights of {numerics} are integers that "
            f"stay what they are. Use rmp with numerics {FLOAT32}, another method with {numerics}, or in Python "
            "calibrate with rmp first and quantise that network."
        )

    def calibrate(self, network: SpikingNetwork, run: CalibrationRun) -> SpikingNetwork:
        """Sets thresholds, the weights that follow and v_init; see `StaticMethod.calibrate`.

        Raises:
            InputError: A layer is reset to a value: RMP is the soft reset. Or the network has max pooling.
            NetworkError: A layer's spikes reach another without a weight that could carry the amplitude.
        """
        for name, spec in network.neurons.items():
            if spec.reset != "subtract":
                raise InputError(f"RMP needs the soft reset, and layer {name!r} is reset to a value.")
        if any(is_wiring(node) and not turns_sign(node) for node in network.graph.nodes.values()):
            raise InputError(
                "RMP raises the threshold of each layer on its own, and what a max pooling gives is a sum of layers "
                "whose spikes must weigh alike. Use half, mean-matching, bias, ftbc or static."
            )
        # What cannot be balanced is refused before the work, and not after it.
        with_thresholds(network, dict.fromkeys(network.layers, 1.0))
        data, device, checkpoint = run.data, run.device, run.checkpoint
        _, kept = checkpoint.load(STAGE) or (0, {})
        highest: dict[str, Tensor] = {name: top.to(device) for name, top in kept.items()}
        horizon = max(run.steps, self.horizon)

        def calibrate_layer(name: str, neuron: NeuronTensors, currents: Currents) -> CalibratedLayer:
            run.progress(STAGE, network.layers.index(name), len(network.layers))
            if name not in highest:
                checkpoint.save(STAGE, len(highest), highest)
                highest[name] = _highest_current(currents, device)
            theta = highest[name] if highest[name] > 0 else neuron.threshold
            balanced = replace(neuron, threshold=theta, v_init=torch.zeros_like(neuron.v_init))
            return CalibratedLayer(
                lambda batch: integrate_and_fire(batch, horizon, balanced).spikes, theta / neuron.threshold
            )

        layer_by_layer(Program(network, device), data, calibrate_layer)
        run.progress(STAGE, len(network.layers), len(network.layers))
        thresholds = {name: top.item() for name, top in highest.items() if top > 0}
        balanced = with_thresholds(network, thresholds)
        return balanced.with_neurons(
            {
                name: replace(spec, v_init=np.zeros(spec.shape, np.float32), levels=None)
                for name, spec in balanced.neurons.items()
            }
        )


def _highest_current(currents: Currents, device: torch.device) -> Tensor:
    """The maximum over the images of all processes, float32, ()."""
    top = torch.full((), -torch.inf, device=device)
    for batch in currents():
        top = torch.maximum(top, batch.max())
    highest(top)
    return top
