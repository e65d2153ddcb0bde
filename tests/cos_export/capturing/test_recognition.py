"""QCFS activations that others wrote are recognised by what they compute, and what only looks like one is refused."""

import numpy as np
import pytest
import torch
from capturing_proof import compare, randomise
from narrowing import present
from torch import nn

from cos_export.capturing import capture, inspect_module
from cos_export.capturing.recognition import recognise_activations
from cos_export.errors import CaptureError
from cos_export.qcfs import QCFS


class StraightThroughFloor(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return value.floor()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class ClipsLast(nn.Module):
    """lambda is `up`, of shape (1,); L is `t`; the floor comes before the clip."""

    def __init__(self, up=8.0, t=4):
        super().__init__()
        self.up = nn.Parameter(torch.tensor([up]))
        self.t = t

    def forward(self, z):
        steps = StraightThroughFloor.apply(z / self.up * self.t + 0.5) / self.t
        return torch.clamp(steps, 0, 1) * self.up


class ClipsFirst(nn.Module):
    """lambda is `thresh`, L is `L`; the clip comes before the floor; T > 0 would make it spike; more attributes."""

    def __init__(self, thresh=8.0, L=4, T=0):
        super().__init__()
        self.spike = StraightThroughFloor.apply
        self.thresh = nn.Parameter(torch.tensor([thresh]))
        self.tau, self.gama, self.loss = 1.0, 1.0, 0
        self.repeat = nn.Identity()
        self.T, self.L = T, L

    def forward(self, z):
        if self.T > 0:
            raise RuntimeError("one step at a time is another module's work")
        clipped = torch.clamp(self.repeat(z) / self.thresh, 0, 1)
        return self.spike(clipped * self.L + 0.5) / self.L * self.thresh


class Plain(nn.Module):
    """lambda is a float, L is nowhere."""

    def __init__(self, lam=1.0, quarters=4):
        super().__init__()
        self.lam = lam
        self.quantise = lambda r: torch.floor(r * quarters + 0.5) / quarters

    def forward(self, z):
        return self.lam * self.quantise(z / self.lam).clamp(0, 1)


def network_of(*activations):
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), activations[0], nn.Flatten(), nn.Linear(144, 8)]
    for activation in activations[1:]:
        layers += [activation, nn.Linear(8, 8)]
    return randomise(nn.Sequential(*layers).eval())


THEIRS = {
    "clips last": (lambda: ClipsLast(0.7, 4), 0.7, 4, "'up'", "attribute 't'"),
    "clips first": (lambda: ClipsFirst(0.9, 8), 0.9, 8, "'thresh'", "attribute 'L'"),
    "one level": (lambda: ClipsFirst(0.9, 1), 0.9, 1, "'thresh'", ""),
    "many levels": (lambda: ClipsLast(1.3, 64), 1.3, 64, "'up'", "attribute 't'"),
    "no parameter": (lambda: Plain(0.5), 0.5, 4, "'lam'", "by counting its steps"),
}


@pytest.mark.parametrize(("make", "threshold", "levels", "name", "source"), THEIRS.values(), ids=THEIRS)
def test_theirs_is_captured_as_ours_would_be(make, threshold, levels, name, source):
    model, x = network_of(make()), torch.rand(5, 2, 8, 8) * 2 - 0.5
    network = capture(model, x)
    compare(network, model, x)
    (spec,) = network.neurons.values()
    assert (spec.threshold == np.float32(threshold)).all()
    assert spec.levels == levels
    finding = next(f for f in inspect_module(model, x) if f.op == "qcfs")
    assert finding.module == "2"
    assert name in finding.becomes
    assert source in finding.becomes
    assert type(model[2]) is type(make()), "the model was changed"


def test_levels_from_the_caller_are_named():
    finding = next(f for f in inspect_module(network_of(Plain()), torch.rand(1, 2, 8, 8), levels=4) if f.op == "qcfs")
    assert finding.becomes.endswith("L = 4 as given")


def test_one_instance_in_two_places_and_a_mixture():
    shared = ClipsLast(0.6, 4)
    model, x = network_of(shared, shared, ClipsFirst(0.4, 2), QCFS(4), nn.ReLU6()), torch.rand(5, 2, 8, 8) * 2 - 0.5
    network = capture(model, x)
    compare(network, model, x)
    assert [spec.levels for spec in network.neurons.values()] == [4, 4, 2, 4, None]


class LearntBound(nn.Module):
    def __init__(self, bound):
        super().__init__()
        self.bound = nn.Parameter(torch.tensor(bound))

    def forward(self, z):
        return z.relu() - (z - self.bound).relu()


class ClampedTensor(LearntBound):
    def forward(self, z):
        return torch.clamp(z, torch.zeros_like(self.bound), self.bound)


@pytest.mark.parametrize("activation", [LearntBound(0.4), ClampedTensor(0.4)], ids=["difference", "clamp"])
def test_a_relu_with_a_learnt_bound(activation):
    model, x = network_of(activation), torch.rand(5, 2, 8, 8) * 2 - 0.5
    network = capture(model, x)
    compare(network, model, x)
    (spec,) = network.neurons.values()
    assert (spec.threshold == np.float32(0.4)).all()
    assert spec.levels is None
    assert any("whose bound is 'bound'" in f.becomes for f in inspect_module(model, x))


class TwoFloats(Plain):
    def __init__(self):
        super().__init__(0.5)
        self.lam, self.eps = None, 1e-3
        self.limit = 0.5

    def forward(self, z):
        return self.limit * self.quantise(z / self.limit).clamp(0, 1)


def test_another_float_does_not_hide_the_threshold():
    model, x = network_of(TwoFloats()), torch.rand(5, 2, 8, 8) * 2 - 0.5
    network = capture(model, x)
    compare(network, model, x)
    assert [spec.levels for spec in network.neurons.values()] == [4]


def test_a_threshold_that_training_made_negative():
    with pytest.raises(CaptureError, match=r"2: qcfs: its threshold is -0\.5, and must be a positive number"):
        capture(network_of(ClipsLast(-0.5, 4)), torch.rand(1, 2, 8, 8))


class NoShift(ClipsLast):
    def forward(self, z):
        return torch.clamp(StraightThroughFloor.apply(z / self.up * self.t) / self.t, 0, 1) * self.up


class Signed(ClipsLast):
    def forward(self, z):
        return torch.clamp(StraightThroughFloor.apply(z / self.up * self.t + 0.5) / self.t, -1, 1) * self.up


class OneStepHigher(ClipsLast):
    def forward(self, z):
        return torch.clamp(StraightThroughFloor.apply(z / self.up * self.t + 0.5) / self.t, 0, 1) * self.up * 1.01


ALMOST = {
    "without the shift": NoShift(0.7),
    "below zero too": Signed(0.7),
    "a little higher": OneStepHigher(0.7),
}


@pytest.mark.parametrize("activation", ALMOST.values(), ids=ALMOST)
def test_what_looks_like_one_and_computes_something_else_is_one_blocker(activation):
    blockers = [f for f in inspect_module(network_of(activation), torch.rand(1, 2, 8, 8)) if f.blocker]
    assert [f.module for f in blockers] == ["2"]
    assert "looks like a QCFS activation with lambda = 0.7" in present(blockers[0].blocker)
    assert "and QCFS" in present(blockers[0].blocker)
    assert "cos_export.QCFS" in present(blockers[0].fix)


class Factor(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.5))

    def forward(self, z):
        return z * self.factor


class DependsOnOthers(ClipsLast):
    def forward(self, z):
        return super().forward(z + z.mean((-1, -2), keepdim=True))


class Fails(ClipsLast):
    def forward(self, z):
        if z.shape[1:] != (4, 6, 6):
            raise ValueError("another shape")
        return super().forward(z)


def test_a_learnt_factor_is_none_and_converts():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.factor, self.act, self.head = nn.Linear(6, 8), Factor(), QCFS(4), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.act(self.factor(self.fc(x))))

    torch.manual_seed(0)
    model, x = randomise(Scaled()), torch.rand(5, 6)
    compare(capture(model, x), model, x)


@pytest.mark.parametrize("activation", [DependsOnOthers(0.7), Fails(0.7), nn.PReLU(), QCFS(4)], ids=repr)
def test_what_is_left_alone(activation):
    model = nn.Sequential(nn.Identity(), activation).eval()
    recognised = recognise_activations(model, None)
    assert not recognised.notes and not recognised.suspects
    assert model[1] is activation
