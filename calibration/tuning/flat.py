"""The parameters of a tuning as one tensor for each learning rate: Adam and the average pass over each of them once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from calibration.tuning.parameters import Parameter

__all__ = ["FlatParameters"]

STEP = "step"
"""What Adam calls the number of its steps, beside its moments of each parameter."""


@dataclass(frozen=True)
class _Flat:
    """What is moved at one rate, (numbers,), its gradient, and its running average."""

    values: Tensor
    gradient: Tensor
    average: Tensor


@dataclass(frozen=True)
class _Place:
    """Where a parameter lies: at which rate, from which number on, in what shape and order of axes."""

    rate: float
    start: int
    shape: torch.Size
    stride: tuple[int, ...]

    def of(self, flat: Tensor) -> Tensor:
        """The parameter's part of what is (numbers,)."""
        return flat.as_strided(self.shape, self.stride, self.start)


class FlatParameters:
    """Parameters that lie in flat tensors from now on, with their gradients, Adam's moments and running averages.

    Rates that change from update to update are tensors on the device, so an update that is repeated as it was recorded
    has those of its own.

    Args:
        parameters: By name. Their values and gradients become views of the flat tensors.
        learning_rate: Of a parameter of rate 1.
    """

    def __init__(self, parameters: Mapping[str, Parameter], learning_rate: float) -> None:
        self._places = _places(parameters)
        self._flats: dict[float, _Flat] = {}
        for key, place in self._places.items():
            if place.rate not in self._flats:
                end = max(p.start + p.shape.numel() for p in self._places.values() if p.rate == place.rate)
                values = torch.zeros(end, dtype=parameters[key].values.dtype, device=parameters[key].values.device)
                self._flats[place.rate] = _Flat(values, torch.zeros_like(values), torch.zeros_like(values))
            flat, tensor = self._flats[place.rate], parameters[key].values
            for part in (flat.values, flat.average):
                place.of(part).copy_(tensor.detach())
            tensor.data, tensor.grad = place.of(flat.values), place.of(flat.gradient)
        self._on_cuda = values.device.type == "cuda"
        groups = []
        for rate, flat in self._flats.items():
            flat.values.grad = flat.gradient
            # A CPU reads the rate as a double; the kernel of CUDA takes float32.
            now = torch.zeros((), dtype=torch.float32 if self._on_cuda else torch.float64, device=flat.values.device)
            groups.append({"params": [flat.values], "lr": now, "top": learning_rate * rate})
        self._optimizer = torch.optim.Adam(groups, fused=True)

    def clear_gradients(self) -> None:
        """Sets them to zero, where they lie."""
        for gradient in self.gradients():
            gradient.zero_()

    def gradients(self) -> list[Tensor]:
        """Of all parameters, flat."""
        return [flat.gradient for flat in self._flats.values()]

    def step(self, factor: Tensor, share: Tensor) -> None:
        """Adam moves the parameters, and the averages follow them.

        Args:
            factor: What each parameter's rate is multiplied by, ().
            share: How much of the way to the parameters the averages go, ().
        """
        for group in self._optimizer.param_groups:
            group["lr"].copy_(factor * group["top"])
            # A fused Adam keeps its state on the device whatever this says. PyTorch asks for it while it records, and
            # warns of it elsewhere.
            group["capturable"] = self._on_cuda and torch.cuda.is_current_stream_capturing()
        self._optimizer.step()
        for flat in self._flats.values():
            flat.average.lerp_(flat.values, share.to(flat.values.dtype))

    def averages(self) -> dict[str, Tensor]:
        """The running averages by name: views."""
        return {key: place.of(self._flats[place.rate].average) for key, place in self._places.items()}

    def tensors(self) -> list[Tensor]:
        """All that an update changes, but for gradients; Adam's moments are there after the first."""
        flats = [part for flat in self._flats.values() for part in (flat.values, flat.average)]
        return [*flats, *(moment for flat in self._flats.values() for moment in self._moments(flat).values())]

    def state(self) -> dict[str, Tensor]:
        """Parameters, averages and Adam's moments by name, to go on from: views."""
        state: dict[str, Tensor] = {}
        for key, place in self._places.items():
            flat = self._flats[place.rate]
            state |= {f"parameter/{key}": place.of(flat.values), f"average/{key}": place.of(flat.average)}
            for name, moment in self._moments(flat).items():
                state[f"adam/{key}/{name}"] = moment if name == STEP else place.of(moment)
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from `state`; what it lacks stays as it is.

        Args:
            state: What `state` returned, of the same parameters, which may be from before the first update.
        """
        for key, place in self._places.items():
            flat = self._flats[place.rate]
            for name, part in (("parameter", flat.values), ("average", flat.average)):
                if f"{name}/{key}" in state:
                    place.of(part).copy_(state[f"{name}/{key}"])
            prefix = f"adam/{key}/"
            kept = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            moments = self._optimizer.state[flat.values] if kept else {}
            for name, value in kept.items():
                if name not in moments:
                    like = flat.values.new_zeros(()) if name == STEP else flat.values
                    moments[name] = torch.zeros_like(like)
                part = moments[name] if name == STEP else place.of(moments[name])
                part.copy_(value)

    def _moments(self, flat: _Flat) -> Mapping[str, Tensor]:
        moments: Mapping[str, Tensor] = self._optimizer.state.get(flat.values, {})
        return moments


def _places(parameters: Mapping[str, Parameter]) -> dict[str, _Place]:
    places, ends = {}, dict[float, int]()
    for key, parameter in parameters.items():
        values, start = parameter.values, ends.get(parameter.rate, 0)
        places[key] = _Place(parameter.rate, start, values.shape, values.stride())
        ends[parameter.rate] = start + values.numel()
    return places
