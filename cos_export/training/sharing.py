"""One training step by several processes: each computes a part of the batch, and the step is that of the whole batch.

Whatever a network does to a sample by itself is the same in any part. What depends on the other samples, or is drawn
for all of them, is done as for the whole batch:

    batch norm    mean and variance are those of all samples, mean = sum_k n_k mean_k / n and
                  n var = sum_k (M_k + n_k (mean_k - mean)^2), with n_k values, mean_k and M_k = sum (x - mean_k)^2 in
                  process k; the gradient goes through both
    dropout       every process draws the masks of all samples and takes its own
    gradients     the loss is the mean over all samples, so that of a process counts n_k / n, and gradients are summed

so a training is that of one process up to the order of sums. What else draws random numbers is refused.

Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cos_export.errors import InputError
from cos_export.processes import differing, process_count, rank, summed

__all__ = ["check_alike", "sum_gradients", "whole_batch"]

_ALONE = "Train it in one process."

_DROPOUTS = (functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d)


def whole_batch(own: slice, size: int, device: torch.device) -> AbstractContextManager[object]:
    """In its block, forward and backward of the samples `own` are a part of those of a batch of `size`.

    Args:
        own: This process's samples of the batch.
        size: Samples of the batch.
        device: Where they are.

    Raises:
        InputError: The network draws random numbers that are not dropout's, or dropout's not by sample.
    """
    return nullcontext() if process_count() == 1 else _WholeBatch(own, size, device)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces every gradient by its sum over all processes; a parameter that none has used keeps having none."""
    if process_count() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    used = [torch.full((1,), float(p.grad is not None), dtype=p.dtype, device=p.device) for p in trained]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    summed([*used, *(p.grad for p in trained if p.grad is not None)])
    for parameter, processes in zip(trained, torch.cat(used).tolist(), strict=True):
        if not processes:
            parameter.grad = None


def check_alike(model: nn.Module, when: str) -> None:
    """Refuses a network that is not the same in all processes.

    Args:
        model: The network.
        when: What has been done with it, in words.

    Raises:
        InputError: It is not; the message names what differs.
    """
    if process_count() == 1:
        return
    found = differing(model.state_dict())
    if found:
        raise InputError(
            f"{', '.join(found[:5])} of {type(model).__name__} differ among the {process_count()} processes {when}. "
            "Give all of them the same weights to start from, as by torch.manual_seed before the network is built; "
            f"or the network keeps something of the samples that each of them has seen. {_ALONE}"
        )


class _WholeBatch(TorchFunctionMode):
    def __init__(self, own: slice, size: int, device: torch.device) -> None:
        super().__init__()
        self._own, self._size, self._device = own, size, device
        self._expected: list[Tensor] = []

    def __enter__(self) -> _WholeBatch:
        self._expected = self._generators()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        if kind is None:
            self._check_generators()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        options = kwargs or {}
        if function is functional.batch_norm:
            return _batch_norm(*args, **options)
        if function in _DROPOUTS:
            return self._dropout(function, *args, **options)
        if function in (torch.batch_norm, torch.native_batch_norm):
            raise InputError(
                f"The network calls torch.{function.__name__}, which would see the samples of one process alone. Call "
                f"torch.nn.functional.batch_norm. {_ALONE}"
            )
        return function(*args, **options)

    def _dropout(
        self,
        function: Callable[..., Tensor],
        input: Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> Tensor:
        if not training:
            return function(input, p, training, inplace)
        count = self._own.stop - self._own.start
        if input.ndim < 2 or len(input) != count:
            raise InputError(
                f"Dropout on a tensor of shape {tuple(input.shape)}, of {count} samples in this process: which mask is "
                f"whose is known only where the first axis is that of the samples. {_ALONE}"
            )
        self._check_generators()
        # Drawn by PyTorch itself, in the memory layout of the whole batch, on which the order of the numbers depends.
        ones = torch.empty_permuted(
            (self._size, *input.shape[1:]), _layout(input), dtype=input.dtype, device=input.device
        ).fill_(1)
        mask = function(ones, p, True)[self._own]
        self._expected = self._generators()
        return input.mul_(mask) if inplace else input * mask

    def _generators(self) -> list[Tensor]:
        """The states of PyTorch's global generators."""
        states = [torch.get_rng_state()]
        return [*states, torch.cuda.get_rng_state(self._device)] if self._device.type == "cuda" else states

    def _check_generators(self) -> None:
        if not all(map(torch.equal, self._generators(), self._expected)):
            raise InputError(
                "In training the network draws random numbers other than those of dropout, and each process would draw "
                f"the same for other samples. {_ALONE}"
            )


def _layout(tensor: Tensor) -> list[int]:
    """The axes of a tensor by the steps that they take in memory, the largest first."""
    axes = sorted(range(tensor.ndim), key=lambda axis: -tensor.stride()[axis])
    if len(tensor) == 1:  # Its step says nothing.
        axes.remove(0)
        axes.insert(0, 0)
    return axes


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm` with the statistics of all processes' samples."""
    if not training:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    with torch.no_grad():
        count, mean, variance = _statistics(input)
        if running_mean is not None:
            running_mean.mul_(1 - momentum).add_(mean.to(running_mean.dtype), alpha=momentum)
        if running_var is not None:
            unbiased = variance * (count / (count - 1))
            running_var.mul_(1 - momentum).add_(unbiased.to(running_var.dtype), alpha=momentum)
    normalised: Tensor = _Normalised.apply(input, weight, bias, count, mean, variance, eps)  # type: ignore[no-untyped-call]
    return normalised


def _statistics(input: Tensor) -> tuple[float, Tensor, Tensor]:
    """How many values a channel has in all processes, and their mean and variance: (channels,) each, in float64."""
    channels = input.shape[1]
    variance, mean = torch.var_mean(_wide(input), _others(input), correction=0)
    count = input.numel() // channels
    table = torch.zeros(process_count(), 2 * channels + 1, dtype=torch.float64, device=input.device)
    table[rank()] = torch.cat([mean.double(), count * variance.double(), mean.new_tensor([count]).double()])
    summed([table])
    means, squares, counts = table[:, :channels], table[:, channels:-1], table[:, -1:]
    whole = counts.sum()
    mean = (counts * means).sum(0) / whole
    return float(whole), mean, (squares + counts * (means - mean).square()).sum(0) / whole


class _Normalised(torch.autograd.Function):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, with mean and var of the samples of all processes.

    With g the gradient of y, d = x - mean, r = 1 / sqrt(var + eps) and means over all processes' values of a channel:

        gradient of x = weight r (g - mean(g) - d r^2 mean(g d))

    Those of weight and bias are this process's part of the sums.
    """

    @staticmethod
    def forward(
        context: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        count: float,
        mean: Tensor,
        variance: Tensor,
        eps: float,
    ) -> Tensor:
        kind = _wide(input).dtype
        context.save_for_backward(input, weight, mean.to(kind), (variance + eps).rsqrt().to(kind))
        context.count, context.biased = count, bias is not None
        return functional.batch_norm(input, mean.to(kind), variance.to(kind), weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean, inverse = context.saved_tensors
        gradient = _wide(gradients[0])
        shape = [1, -1, *[1] * (input.ndim - 2)]
        deviation = _wide(input) - mean.reshape(shape)
        of_bias, product = gradient.sum(_others(input)), (gradient * deviation).sum(_others(input))
        both = torch.stack([of_bias, product]).double()
        summed([both])
        first, second = (both / context.count).to(gradient.dtype)
        deviation.mul_((second * inverse.square()).reshape(shape)).add_(first.reshape(shape))
        scale = inverse if weight is None else inverse * weight
        of_input = (gradient - deviation).mul_(scale.reshape(shape)).to(input.dtype)
        of_weight = None if weight is None else (product * inverse).to(weight.dtype)
        return of_input, of_weight, of_bias if context.biased else None, None, None, None, None


def _wide(tensor: Tensor) -> Tensor:
    """In float32 at least."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _others(tensor: Tensor) -> list[int]:
    """All axes but that of the channels."""
    return [axis for axis in range(tensor.ndim) if axis != 1]
