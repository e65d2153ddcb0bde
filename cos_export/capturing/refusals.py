"""What to do about the operators that are met often and have no spiking equivalent."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["refusal"]

_ACTIVATION = (
    "no integrate-and-fire neuron stands for this activation: one does for a ReLU and for a staircase",
    "use nn.ReLU, or cos_export.QCFS(levels=4), in its place and train (or fine-tune) with it",
)
_OTHER_MAXIMUM = (
    "no neurons stand for this maximum: they do for max pooling over one or two axes, amax over space, torch.maximum",
    "use nn.MaxPool1d, nn.MaxPool2d, x.amax((2, 3)) or torch.maximum(a, b)",
)
_NORM = (
    "it normalises by statistics of each sample, which no fixed weight can do",
    "use nn.BatchNorm1d or nn.BatchNorm2d, which fold into the weights",
)
_SOFTMAX = (
    "it is not a neuron",
    "remove it: the largest logit is the same without, and the loss can apply it in training",
)
_PAD = (
    "it pads with other values than zeros, as Conv2d does where padding_mode is not 'zeros'",
    "give the convolution padding= and padding_mode='zeros', or pad with zeros",
)
_MATMUL = (
    "a matrix product outside a layer has no synapse that stands for it",
    "use nn.Linear for constant weights; attention cannot be converted",
)
_JOIN = ("it joins values along a new axis", "join them along the channels: torch.cat(..., 1)")
_CUT = ("it takes a part of a value or re-orders its axes", "keep (channels, height, width) whole until the flatten")
_RECURRENT = ("it is recurrent", "use a feed-forward network: Conv1d over time, for one")
_OTHER_CONV = ("this convolution has no NIR node", "use Conv1d or Conv2d")
_RESIZE = ("it resizes a feature map", "use strides, average pooling, or leave it out")
_NO_GRAD = (
    "forward switches gradients on or off, which splits the graph",
    "remove torch.no_grad() and the like from forward; capture needs none",
)
_AUTOCAST = (
    "a part of forward runs under torch.autocast, in another type than float32",
    "leave autocast out of forward, and put it around the call where the network is trained",
)
_BRANCH = ("it chooses a branch by a value of the input", "use the same operations for every input")


def _all(names: str, refusal: tuple[str, str]) -> Iterable[tuple[str, tuple[str, str]]]:
    return ((name, refusal) for name in names.split())


_REFUSALS: dict[str, tuple[str, str]] = dict(
    (
        *_all(
            "relu relu6 leaky_relu prelu rrelu hardshrink elu selu celu gelu silu mish sigmoid tanh hardtanh hardswish "
            "hardsigmoid softplus softsign logsigmoid log_sigmoid threshold clamp clamp_min clamp_max floor round "
            "sign abs exp log pow sqrt square glu",
            _ACTIVATION,
        ),
        *_all("max_pool3d adaptive_max_pool3d fractional_max_pool2d max min", _OTHER_MAXIMUM),
        *_all("layer_norm group_norm instance_norm rms_norm local_response_norm", _NORM),
        *_all("softmax log_softmax", _SOFTMAX),
        *_all("pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad2d", _PAD),
        *_all("matmul mm bmm addmm einsum scaled_dot_product_attention", _MATMUL),
        *_all("stack vstack dstack", _JOIN),
        *_all(
            "select unbind index index_select narrow movedim t flip roll pixel_shuffle pixel_unshuffle getitem",
            _CUT,
        ),
        *_all("lstm gru rnn_tanh rnn_relu", _RECURRENT),
        *_all("conv3d conv_transpose1d conv_transpose2d conv_transpose3d", _OTHER_CONV),
        *_all("upsample_nearest2d upsample_bilinear2d interpolate upsample_bicubic2d", _RESIZE),
        *_all("wrap_with_set_grad_enabled", _NO_GRAD),
        *_all("wrap_with_autocast", _AUTOCAST),
        *_all("cond while_loop where", _BRANCH),
    )
)


def refusal(op: str) -> tuple[str, str]:
    """Why the operator called `op` is refused, and what to do."""
    return _REFUSALS.get(
        op.rstrip("_"),
        (
            "it has no spiking equivalent here",
            "known are Conv1d, Conv2d, Linear, BatchNorm, QCFS, ReLU, average pooling, flatten, addition, dropout and "
            "concatenation of channels",
        ),
    )
