"""What forward draws at random, or keeps from call to call, is refused by name; what it computes alike is captured."""

import random

import numpy as np
import pytest
import torch
from capturing_proof import logits
from narrowing import present
from torch import nn
from torch.nn import functional as F

from calibration.thresholds import relu_thresholds
from cos_export.capturing import capture, check_model
from cos_export.errors import CaptureError
from cos_export.qcfs import QCFS
from cos_export.simulation import ann_logits


class Noisy(nn.Module):
    """A convolution whose weights `change` makes anew in each call."""

    calls = 0

    def __init__(self, change):
        super().__init__()
        self.conv, self.change, self.count, self.kept = nn.Conv2d(2, 4, 3), change, 0, None
        self.rng = np.random.default_rng(0)

    def forward(self, x):
        return F.conv2d(x, self.change(self, self.conv.weight), self.conv.bias)


class Net(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.noisy, self.act, self.fc = Noisy(change), QCFS(4, 1.0), nn.Linear(64, 3)

    def forward(self, x):
        return self.fc(self.act(self.noisy(x)).flatten(1))


def counted(module, weight):
    module.count += 1
    return weight * module.count


def counted_for_all(module, weight):
    Noisy.calls += 1
    return weight * Noisy.calls


def own_generator(module, weight):
    return weight * float(module.rng.random())


def last_weight(module, weight):
    before, module.kept = module.kept, weight * 0.5
    return weight if before is None else before


def half_hidden(module, weight):
    """Touches weights that these images never see."""
    return weight * torch.tensor([1.0, 0.0])[None, :, None, None] + 0 * weight * random.random()


DRAWN = {
    "randn_like": lambda m, w: w + 0.1 * torch.randn_like(w),
    "rand": lambda m, w: w * torch.rand(4, 2, 3, 3),
    "bernoulli": lambda m, w: w * torch.bernoulli(torch.full_like(w, 0.5)),
    "randperm": lambda m, w: w[torch.randperm(4)],
    "dropout": lambda m, w: F.dropout(w, 0.5, training=True),
    "dropout of channels": lambda m, w: F.dropout2d(w, 0.5, training=True),
    "normal_": lambda m, w: w + torch.empty_like(w).normal_(),
    "uniform_": lambda m, w: w + torch.zeros_like(w).uniform_(),
    "randint": lambda m, w: w * torch.randint(0, 2, (4, 1, 1, 1)),
    "multinomial": lambda m, w: w[torch.multinomial(torch.ones(4), 4)],
    "python": lambda m, w: w * random.random(),
    "python, a choice": lambda m, w: w * random.choice([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]),
    "python, a branch": lambda m, w: w.abs() if int(random.random() * 1e6) % 2 else w.neg(),
    "numpy": lambda m, w: w * torch.from_numpy(np.random.rand(4, 2, 3, 3).astype(np.float32)),
    "numpy, a permutation": lambda m, w: w[torch.from_numpy(np.random.permutation(4))],
    "numpy, a generator of its own": lambda m, w: w * float(np.random.default_rng().random()),
    "counted for all": counted_for_all,
    "hidden": half_hidden,
}

KEPT = {"counted": counted, "a generator kept": own_generator, "the last weight": last_weight}


@pytest.mark.parametrize("values", ["zeros", "random"])
@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_is_refused_by_name(name, values):
    torch.manual_seed(0)
    x = torch.zeros(1, 2, 6, 6) if values == "zeros" else torch.rand(1, 2, 6, 6)
    result = check_model(Net(DRAWN[name]), x)
    blocked = [finding for finding in result.blockers if finding.module == "noisy"]
    assert "random" in present(blocked[0].blocker)
    assert "self.training" in present(blocked[0].fix)
    assert f"{__file__}:" in present(blocked[0].line)


@pytest.mark.parametrize("values", ["zeros", "random"])
@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_between_calls_is_refused_by_name(name, values):
    torch.manual_seed(0)
    x = torch.zeros(1, 2, 6, 6) if values == "zeros" else torch.rand(1, 2, 6, 6)
    model = Net(KEPT[name])
    with pytest.raises(CaptureError, match=r"noisy: \w+: forward keeps state between calls"):
        capture(model, x)
    [finding] = check_model(model, x).blockers
    assert f"{__file__}:" in present(finding.line)
    with pytest.raises(CaptureError, match=r"noisy: \w+: forward keeps state between calls"):
        relu_thresholds(model, x, device="cpu")
    assert model.noisy.count == 0
    assert model.noisy.kept is None


def cached(module, weight):
    """Makes a table in the first call and reads it in the others: the same numbers."""
    if module.kept is None:
        module.kept = [float(n) for n in np.linspace(0.5, 1.5, 4)]
    return weight * torch.tensor(module.kept)[:, None, None, None]


def masked(module, weight):
    mask = torch.ones(4, 2, 3, 3)
    mask[1] = 0
    mask[:, :, 1] *= 0.5
    return weight * mask


def counts_and_says_nothing(module, weight):
    module.count += 1
    return weight


SAME = {
    "a table that is kept": cached,
    "a mask made in forward": masked,
    "a counter that nothing reads": counts_and_says_nothing,
    "a number": lambda m, w: w * torch.tensor(0.5),
    "a seeded generator": lambda m, w: w * float(np.random.default_rng(3).random()),
    "noise in training": lambda m, w: w + torch.randn_like(w) if m.training else w,
    "dropout in training": lambda m, w: F.dropout(w, 0.5, m.training),
    "memory not written yet": lambda m, w: torch.empty_like(w).copy_(w),
}


@pytest.mark.parametrize("name", SAME)
def test_what_is_the_same_each_time_is_captured(name):
    torch.manual_seed(0)
    model, x = Net(SAME[name]).eval(), torch.randn(4, 2, 6, 6)
    actual = ann_logits(capture(model, x), x, device="cpu")
    np.testing.assert_allclose(actual, logits(model, x), rtol=1e-4, atol=1e-5)


def test_counters_of_a_hook_are_seen_too():
    torch.manual_seed(0)
    model, seen = Net(lambda m, w: w), []

    def louder(module, inputs, output):
        seen.append(1)
        return output * len(seen)

    model.noisy.register_forward_hook(louder)
    with pytest.raises(CaptureError, match=r"keeps state between calls|outside of the module"):
        capture(model, torch.rand(1, 2, 6, 6))


def accumulates(module, weight):
    torch.add(torch.ones(1), module.total, out=module.total)
    return weight * module.total


def test_a_buffer_that_out_writes_to_is_state():
    torch.manual_seed(0)
    model = Net(accumulates)
    model.noisy.register_buffer("total", torch.zeros(1))
    with pytest.raises(CaptureError, match="noisy: add: forward changes a buffer of the model"):
        capture(model, torch.rand(1, 2, 6, 6))
    assert model.noisy.get_buffer("total").item() == 0
