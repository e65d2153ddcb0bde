"""The static calibration of cos-export: mean matching, then what a fixed graph can hold is tuned by gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from calibration.checkpoint import Checkpoint, potentials, with_potentials
from calibration.data import CalibrationData
from calibration.distributed import summed
from calibration.mean_matching import MeanMatching
from calibration.surrogate import differentiable_train
from cos_export.errors import InputError
from cos_export.network import FloatArray, NeuronSpec, SpikingNetwork
from cos_export.neuron import NeuronTensors, channels_last
from cos_export.progress import Progress
from cos_export.propagation import Program, clipped_activation

__all__ = ["Static", "Tuned"]

Tuned = Literal["potential", "threshold", "bias"]

STAGE = "tuning"


@dataclass(frozen=True)
class Static:
    """Static calibration by gradient: the same potentials for all inputs, and no extra step at inference.

    Starts from mean matching and minimises, over the calibration images and without labels,

        KL( softmax(logits of the artificial network) || softmax(mean readout of T steps) )

    by Adam with a cosine schedule, all weights as they are. With p, g and b the parameters that are tuned, from zero,

        v_init = v_0 + theta_0 p           p: one for each neuron              "potential"
        theta  = theta_0 exp(g)            g: one for each channel             "threshold"
        beta(t) = theta_0 b(t)             b: one for each channel and step    "bias"

    where v_0 is what mean matching found and theta_0 the threshold before. What a spike carries on stays what it was.
    The derivative of a spike is the triangle max(0, 1 - |m / theta - 1|). Since that is not the true one, the
    divergence is measured over all calibration images in the end, and mean matching is kept if it is closer.

    Attributes:
        tune: What is tuned: "potential", "threshold", "bias" (a bias for each step).
        updates: Gradient steps.
        samples: Images in each.
        learning_rate: Of Adam, for p; the parameters of a channel, which many neurons pull at, move at a fifth of it.
        rounds: Of the mean matching before.
        seed: Of the order of the images.
    """

    tune: tuple[Tuned, ...] = ("potential",)
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
        known = get_args(Tuned)
        if not self.tune or set(self.tune) - set(known) or len(set(self.tune)) < len(self.tune):
            raise InputError(f"What is tuned must be some of {', '.join(known)}, each once, not {self.tune}.")

    def calibrate(
        self,
        network: SpikingNetwork,
        data: CalibrationData,
        steps: int,
        device: torch.device,
        progress: Progress,
        checkpoint: Checkpoint,
    ) -> SpikingNetwork:
        """Sets v_init and what else is tuned; see `calibration.stage.StaticMethod.calibrate`.

        Raises:
            InputError: A layer is reset to a value, silent, or has a bias for each step: the gradient is that of the
                plain neuron with the soft reset.
        """
        _check_neurons(network)
        done, kept = checkpoint.load(STAGE) or (0, {})
        if kept:
            network = with_potentials(network, _part(kept, "start/"))
        else:
            network = MeanMatching(self.rounds).calibrate(network, data, steps, device, progress, checkpoint)
        program = Program(network, device)
        layers = {name: _Parameters(program.neurons[name], self.tune, steps) for name in network.layers}
        tensors = {f"{name}/{key}": value for name, layer in layers.items() for key, value in layer.tensors.items()}
        optimizer = self._optimizer(tensors, kept)
        batches = data.shuffled(self.samples, self.seed, first=done)
        for update in range(done, self.updates):
            progress("tuning the potentials", update, self.updates)
            checkpoint.save(STAGE, update, _state(network, tensors, optimizer))
            for group in optimizer.param_groups:
                group["lr"] = group["top"] * 0.5 * (1.0 + math.cos(math.pi * update / self.updates))
            _differentiate(program, next(batches).to(device), steps, layers, min(self.samples, len(data)))
            optimizer.step()
        progress("tuning the potentials", self.updates, self.updates)
        untouched = {name: _Parameters(program.neurons[name], (), steps) for name in network.layers}
        if _divergence(program, data, steps, untouched) <= _divergence(program, data, steps, layers):
            return network
        return network.with_neurons({name: layers[name].applied(spec) for name, spec in network.neurons.items()})

    def _optimizer(self, tensors: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> torch.optim.Adam:
        """Adam over the parameters, both where an interrupted calibration has left them."""
        groups = []
        for key, parameter in tensors.items():
            top = self.learning_rate if key.endswith("/potential") else self.learning_rate / 5
            groups.append({"params": [parameter], "lr": top, "top": top})
        optimizer = torch.optim.Adam(groups)
        for key, parameter in tensors.items():
            held = _part(kept, f"adam/{key}/")
            if held:
                parameter.data.copy_(kept[f"parameter/{key}"])
                optimizer.state[parameter] = {
                    name: value if name == "step" else torch.empty_like(parameter).copy_(value)
                    for name, value in held.items()
                }
        return optimizer


class _Parameters:
    """What is tuned of one layer, and the neurons that come of it."""

    def __init__(self, neuron: NeuronTensors, tune: Iterable[Tuned], steps: int) -> None:
        self.neuron = neuron
        shape = neuron.v_init.shape
        sizes = {
            "potential": shape,
            "threshold": (shape[0], *[1] * (len(shape) - 1)),
            "bias": (steps, 1, shape[0], *[1] * (len(shape) - 1)),
        }
        self.tensors = {
            kind: channels_last(torch.zeros(sizes[kind], dtype=neuron.v_init.dtype, device=neuron.v_init.device))
            for kind in tune
        }
        for tensor in self.tensors.values():
            tensor.requires_grad_(True)

    def train(self, currents: Tensor, steps: int) -> Tensor:
        """The layer's spikes, with gradients to its parameters."""
        theta = self.neuron.threshold
        v_init, threshold, bias = self.neuron.v_init, theta, None
        if "potential" in self.tensors:
            v_init = v_init + theta * self.tensors["potential"]
        if "threshold" in self.tensors:
            threshold = theta * self.tensors["threshold"].exp()
        if "bias" in self.tensors:
            bias = _per_channel(theta) * self.tensors["bias"]
        return differentiable_train(currents, steps, v_init, threshold, bias)

    def applied(self, spec: NeuronSpec) -> NeuronSpec:
        """The layer with its parameters as they are now."""
        theta = self.neuron.threshold
        with torch.no_grad():
            if "potential" in self.tensors:
                spec = replace(spec, v_init=_array(self.neuron.v_init + theta * self.tensors["potential"]))
            if "threshold" in self.tensors:
                scaled = theta * self.tensors["threshold"].exp()
                spec = replace(spec, threshold=_array(scaled.expand(self.neuron.v_init.shape)))
            if "bias" in self.tensors:
                spec = replace(spec, bias=_array((_per_channel(theta) * self.tensors["bias"]).flatten(1)))
        return spec


def _per_channel(threshold: Tensor) -> Tensor:
    """The unit of a layer's biases: its threshold, or the mean threshold of each channel."""
    return threshold if threshold.ndim < 2 else threshold.flatten(1).mean(1).reshape(-1, *[1] * (threshold.ndim - 1))


def _check_neurons(network: SpikingNetwork) -> None:
    for name, spec in network.neurons.items():
        if spec.reset != "subtract":
            raise InputError(f"The static method needs the soft reset, and layer {name!r} is reset to a value.")
        if spec.silent is not None or spec.bias is not None:
            raise InputError(
                f"The static method starts from plain neurons, and layer {name!r} has silent ones or a bias per step."
            )


def _differentiate(
    program: Program, images: Tensor, steps: int, layers: Mapping[str, _Parameters], samples: int
) -> None:
    """Puts the gradient of the loss, its mean over the `samples` of all processes, into each parameter's grad."""
    parameters = [tensor for layer in layers.values() for tensor in layer.tensors.values()]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    if len(images):
        with torch.enable_grad():
            loss = _summed_loss(program, images, steps, layers) / samples
            loss.backward()  # type: ignore[no-untyped-call]
    summed([parameter.grad for parameter in parameters if parameter.grad is not None])


def _divergence(program: Program, data: CalibrationData, steps: int, layers: Mapping[str, _Parameters]) -> float:
    """The mean of the loss over all calibration images."""
    total = torch.zeros((), dtype=torch.float64, device=program.device)
    with torch.no_grad():
        for images in data.ordered():
            total += _summed_loss(program, images.to(program.device), steps, layers).double()
    summed([total])
    return float(total) / len(data)


def _summed_loss(program: Program, images: Tensor, steps: int, layers: Mapping[str, _Parameters]) -> Tensor:
    def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        return layers[name].train(currents, steps)

    with torch.no_grad():
        wanted = (program.readout_scale * program.propagate(images, clipped_activation)[0]).log_softmax(dim=1)
    found = (program.readout_scale * program.propagate(images, rule).mean(0)).log_softmax(dim=1)
    return functional.kl_div(found, wanted, reduction="sum", log_target=True)


def _state(network: SpikingNetwork, tensors: Mapping[str, Tensor], optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """All that `Static.calibrate` needs to go on: what it started from, the parameters and Adam's moments."""
    state = {f"start/{name}": value for name, value in potentials(network).items()}
    for key, parameter in tensors.items():
        state[f"parameter/{key}"] = parameter
        state |= {f"adam/{key}/{name}": value for name, value in optimizer.state[parameter].items()}
    return state


def _part(kept: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in kept.items() if key.startswith(prefix)}


def _array(tensor: Tensor) -> FloatArray:
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), np.float32)
