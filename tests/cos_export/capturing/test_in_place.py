"""Whatever writes over what, and whoever reads it again: the capture computes what PyTorch does, or is refused."""

import copy

import numpy as np
import pytest
import torch
from capturing_proof import logits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from calibration.thresholds import relu_thresholds
from cos_export.capturing import capture, check_model, inspect_module
from cos_export.errors import CaptureError
from cos_export.qcfs import QCFS
from cos_export.simulation import ann_logits

CHANNELS, SIDE = 4, 4


class StepByStep(nn.Module):
    """QCFS that computes in the memory of its input, which holds the result afterwards."""

    def __init__(self, lam, levels=4):
        super().__init__()
        self.lam, self.levels = nn.Parameter(torch.tensor(lam)), levels

    def forward(self, z):
        return z.div_(self.lam).mul_(self.levels).add_(0.5).floor_().div_(self.levels).clamp_(0, 1).mul_(self.lam)


class LeavesASum(StepByStep):
    """QCFS that leaves an intermediate value in its input."""

    def forward(self, z):
        scaled = z.div_(self.lam).mul_(self.levels).add_(0.5)
        return (scaled.floor() / self.levels).clamp(0, 1) * self.lam


class CopiesBack(StepByStep):
    """QCFS that computes elsewhere and copies the result into its input."""

    def forward(self, z):
        result = ((z / self.lam * self.levels + 0.5).floor() / self.levels).clamp(0, 1) * self.lam
        z.copy_(result)
        return result


class ThroughFloat(StepByStep):
    """QCFS that computes in float32, which is its input's own memory where that is float32."""

    def forward(self, z):
        return super().forward(z.float())


class LearntBound(nn.Module):
    """A ReLU with a learnt bound, in place."""

    def __init__(self, bound):
        super().__init__()
        self.bound = nn.Parameter(torch.tensor(bound))

    def forward(self, z):
        return z.clamp_(min=0).copy_(torch.minimum(z, self.bound))


USERS_OWN = (StepByStep, LeavesASum, CopiesBack, ThroughFloat, LearntBound)

MAKES = {
    "ours": lambda lam: QCFS(4, lam),
    "hardtanh": lambda lam: nn.Hardtanh(0, lam),
    "hardtanh in place": lambda lam: nn.Hardtanh(0, lam, inplace=True),
    "relu6": lambda lam: nn.ReLU6(inplace=True),
    **{kind.__name__: kind for kind in USERS_OWN},
}

STEPS = (
    "conv",
    "norm",
    "activate",
    "drop the result",
    "activate a view",
    "activate half",
    "clamp_",
    "add",
    "iadd",
    "add.out",
    "isub",
    "imul",
    "imul a view",
    "imul half",
    "copy_",
    "dropout",
    "dropout in place",
    "detach",
    "reshape",
    "contiguous",
    "halves",
    "clone",
    "zero",
)

step = st.tuples(st.sampled_from(STEPS), st.integers(0, 3), st.integers(0, 3), st.sampled_from(tuple(MAKES)))


class Program(nn.Module):
    """Each step works on tensors made so far, counted from the last one, and may make another."""

    def __init__(self, plan):
        super().__init__()
        self.plan = plan
        generator = torch.Generator().manual_seed(len(plan))
        self.convs = nn.ModuleList(nn.Conv2d(CHANNELS, CHANNELS, 1) for _ in plan)
        self.norms = nn.ModuleList(nn.BatchNorm2d(CHANNELS) for _ in plan)
        self.acts = nn.ModuleList(
            MAKES[name](float(torch.rand((), generator=generator)) * 0.5 + 0.6) for *_, name in plan
        )
        self.last, self.head = QCFS(4, 1.1), nn.Linear(CHANNELS * SIDE * SIDE, 3)

    def forward(self, x):
        made = [x]
        for i, (what, a, b, _) in enumerate(self.plan):
            left, right = made[max(-1 - a, -len(made))], made[max(-1 - b, -len(made))]
            result = self.step(what, left, right, i)
            if result is not None:
                made.append(result)
        return self.head(self.last(made[-1] + 0.7 * made[max(-3, -len(made))]).flatten(1))

    def step(self, what, left, right, i):
        if what == "conv":
            return self.convs[i](left)
        if what == "norm":
            return self.norms[i](left)
        if what == "activate":
            return self.acts[i](left)
        if what == "drop the result":
            self.acts[i](left)
        elif what == "activate a view":
            return self.acts[i](left.flatten(2)).reshape(left.shape)
        elif what == "activate half":
            return torch.cat((left[:, 2:], self.acts[i](left[:, :2])), 1)
        elif what == "clamp_":
            left.clamp_(0, 0.9)
        elif what == "add":
            return left + right
        elif what == "iadd":
            left += right
        elif what == "add.out":
            torch.add(left, right, out=left)
        elif what == "isub":
            return left.sub_(right)
        elif what == "imul":
            left *= 0.8
        elif what == "imul a view":
            left.view(len(left), CHANNELS, -1).mul_(1.2)
        elif what == "imul half":
            left[:, :2] *= 0.7
        elif what == "copy_":
            left.copy_(right)
        elif what == "dropout":
            return F.dropout(left, 0.5, self.training)
        elif what == "dropout in place":
            return F.dropout(left, 0.5, self.training, inplace=True)
        elif what == "detach":
            return left.detach()
        elif what == "reshape":
            return left.reshape(left.shape)
        elif what == "contiguous":
            return left.contiguous()
        elif what == "halves":
            return torch.cat(left.chunk(2, 1)[::-1], 1)
        elif what == "clone":
            return left.clone()
        else:
            left.zero_()
        return None


def judge(plan):
    """Whether the plan's module was captured; if so, it is what PyTorch computes."""
    torch.manual_seed(0)
    model = Program(plan).eval()
    kept, x = copy.deepcopy(model.state_dict()), torch.randn(3, CHANNELS, SIDE, SIDE)
    example = x.clone()
    try:
        network = capture(model, example)
    except CaptureError:
        network = None
    assert torch.equal(example, x)
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())
    if network is None:
        return False
    expected = logits(model, x.clone())
    np.testing.assert_allclose(ann_logits(network, x, device="cpu"), expected, rtol=1e-4, atol=1e-5)
    return True


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(step, min_size=1, max_size=6))
def test_any_program(plan):
    judge(plan)


class OneActivation(nn.Module):
    """`how` says what is read after the activation has run."""

    def __init__(self, act, how):
        super().__init__()
        self.conv, self.act, self.how = nn.Conv2d(2, CHANNELS, 3, padding=1), act, how
        self.last, self.head = QCFS(4, 1.1), nn.Linear(CHANNELS * 36, 3)

    def forward(self, x):
        z = self.conv(x)
        if self.how == "the result":
            z = self.act(z)
        elif self.how == "the input alone":
            self.act(z)
        elif self.how == "both":
            z = self.act(z) + 0.5 * z
        elif self.how == "a view of the input":
            view = z.flatten(2)
            z = self.act(z) + 0.5 * view.reshape(z.shape)
        return self.head(self.last(z).flatten(1))


IN_PLACE = {**{kind.__name__: kind for kind in USERS_OWN}, "Hardtanh": MAKES["hardtanh in place"]}


@pytest.mark.parametrize("how", ["the result", "the input alone", "both", "a view of the input"])
@pytest.mark.parametrize("name", IN_PLACE)
def test_an_activation_in_place(name, how):
    torch.manual_seed(0)
    model, x = OneActivation(IN_PLACE[name](0.4), how).eval(), torch.randn(5, 2, 6, 6)
    leaves_the_result = name != "LeavesASum"
    if how == "the result" or (leaves_the_result and how != "a view of the input"):
        actual = ann_logits(capture(model, x), x, device="cpu")
        np.testing.assert_allclose(actual, logits(model, x), rtol=1e-4, atol=1e-5)
        return
    with pytest.raises(CaptureError, match=r"  act: \w+: it (overwrites in place|writes a constant over)"):
        capture(model, x)
    assert any(finding.module == "act" and finding.blocker for finding in inspect_module(model, x))


def test_what_dropout_hands_on_in_eval_mode_is_its_input():
    """In eval mode dropout returns its input itself, so what is clamped then is what the sum reads."""

    class Shares(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last, self.fc = nn.Conv2d(2, 4, 3), QCFS(4, 1.0), nn.Linear(64, 3)

        def forward(self, x):
            z = self.conv(x)
            kept = F.dropout(z, 0.5, self.training).clamp_(0, 0.5)
            return self.fc(self.last(kept + z).flatten(1))

    with pytest.raises(CaptureError, match="clamp_: it overwrites in place what is read again later"):
        capture(Shares(), torch.rand(1, 2, 6, 6))


def halving(module, inputs):
    """A pre-hook that writes into what its module is given."""
    inputs[0].mul_(0.5)


def doubling(module, inputs, output):
    """A hook that writes into the result."""
    output.mul_(2)


@pytest.mark.parametrize("kind", ["tensor", "array"])
@pytest.mark.parametrize("where", ["", "0"])
def test_hooks_that_write_are_captured_and_reach_nothing_of_the_users(where, kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, CHANNELS, 3), nn.ReLU(), nn.Flatten(), nn.Linear(CHANNELS * 16, 3)).eval()
    model.get_submodule(where).register_forward_pre_hook(halving)
    model[3].register_forward_hook(doubling)
    images = torch.randn(4, 2, 6, 6)
    kept = images.clone()
    given = images if kind == "tensor" else images.numpy()
    thresholds = relu_thresholds(model, given, "maximum", device="cpu", batch_size=4)
    raised = {key: value * np.float32(1.01) for key, value in thresholds.items()}
    network = capture(model, given, thresholds=raised)
    check_model(model, given, thresholds=raised)
    inspect_module(model, given)
    assert torch.equal(images, kept)
    np.testing.assert_allclose(
        ann_logits(network, kept, device="cpu"), logits(model, kept.clone()), rtol=1e-4, atol=1e-5
    )
    assert torch.equal(images, kept)


def test_a_result_written_into_out_is_refused_by_name():
    class Out(OneActivation):
        def forward(self, x):
            z = self.conv(x)
            torch.mul(z, 2.0, out=z)
            return self.head(self.last(z).flatten(1))

    with pytest.raises(CaptureError, match="mul: it writes its result into out="):
        capture(Out(nn.ReLU6(), "out"), torch.rand(1, 2, 6, 6))
