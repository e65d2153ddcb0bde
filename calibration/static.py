"""Static potentials by gradient: mean matching, then v_init alone tuned towards the answer of the activations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from calibration.data import CalibrationData
from calibration.mean_matching import MeanMatching
from calibration.surrogate import differentiable_train
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork
from cos_export.neuron import NeuronTensors
from cos_export.progress import Progress
from cos_export.propagation import Program, clipped_activation

__all__ = ["Static"]


@dataclass(frozen=True)
class Static:
    """Static calibration by gradient: one v_init per neuron, the same for all inputs.

    Starts from mean matching and minimises, over the calibration images and without labels,

        KL( softmax(logits of the artificial network) || softmax(mean readout of T steps) )

    in v_init / theta by Adam with a cosine schedule, all weights and thresholds as they are. The derivative of a
    spike is the triangle max(0, 1 - |m / theta - 1|). Since that is not the true one, the divergence is measured over
    all calibration images in the end, and the potentials of the mean matching are kept if they are closer.

    Attributes:
        updates: Gradient steps.
        samples: Images in each.
        learning_rate: Of Adam, in units of the threshold.
        rounds: Of the mean matching before.
        seed: Of the order of the images.
    """

    updates: int = 300
    samples: int = 64
    learning_rate: float = 0.02
    rounds: int = 10
    seed: int = 0
    name: str = field(default="static", init=False)
    needs_data: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if self.updates < 1 or self.samples < 1 or not self.learning_rate > 0:
            raise InputError("The static method needs at least one update, one sample and a positive learning rate.")

    def calibrate(
        self,
        network: SpikingNetwork,
        data: CalibrationData,
        steps: int,
        device: torch.device,
        progress: Progress,
    ) -> SpikingNetwork:
        """Sets v_init; see `calibration.stage.StaticMethod.calibrate`.

        Raises:
            InputError: A layer is reset to a value: the gradient is that of the soft reset.
        """
        for name, spec in network.neurons.items():
            if spec.reset != "subtract":
                raise InputError(f"The static method needs the soft reset, and layer {name!r} is reset to a value.")
        network = MeanMatching(self.rounds).calibrate(network, data, steps, device, progress)
        program = Program(network, device)
        shifts = {name: torch.zeros_like(neuron.v_init, requires_grad=True) for name, neuron in program.neurons.items()}
        optimizer = torch.optim.Adam(list(shifts.values()), lr=self.learning_rate)
        batches = data.shuffled(self.samples, np.random.default_rng(self.seed))
        for done in range(self.updates):
            progress("tuning the potentials", done, self.updates)
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done / self.updates))
            with torch.enable_grad():
                loss = _loss(program, next(batches).to(device), steps, shifts)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        progress("tuning the potentials", self.updates, self.updates)
        untouched = {name: torch.zeros_like(shift) for name, shift in shifts.items()}
        if _divergence(program, data, steps, untouched) <= _divergence(program, data, steps, shifts):
            return network
        tuned = {
            name: replace(spec, v_init=(spec.v_init + spec.threshold * _array(shifts[name])).astype(np.float32))
            for name, spec in network.neurons.items()
        }
        return network.with_neurons(tuned)


def _divergence(program: Program, data: CalibrationData, steps: int, shifts: dict[str, Tensor]) -> float:
    """The mean of the loss over all calibration images."""
    with torch.no_grad():
        sums = [float(_loss(program, x.to(program.device), steps, shifts)) * len(x) for x in data.ordered()]
    return math.fsum(sums) / len(data)


def _loss(program: Program, images: Tensor, steps: int, shifts: dict[str, Tensor]) -> Tensor:
    def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        return differentiable_train(currents, steps, neuron, neuron.v_init + neuron.threshold * shifts[name])

    with torch.no_grad():
        wanted = program.propagate(images, clipped_activation)[0].log_softmax(dim=1)
    found = program.propagate(images, rule).mean(0).log_softmax(dim=1)
    return functional.kl_div(found, wanted, reduction="batchmean", log_target=True)


def _array(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(tensor.detach().cpu().numpy(), np.float32)
