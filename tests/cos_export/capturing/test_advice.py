"""What is given in place of a trained network, or is met often in one, is named with a fix that helps."""

import sys
import types

import nir
import numpy as np
import pytest
import torch
from narrowing import present
from torch import nn
from torch.nn import functional as F

import cos_export as ce
from cos_export.capturing import capture, check_model
from cos_export.errors import CaptureError, InputError


class Net(nn.Module):
    """A layer, an activation as a function of the module and a value, and a head."""

    def __init__(self, act, after=lambda x: x, **modules):
        super().__init__()
        self.layer, self.head, self.act, self.after = nn.Linear(4, 4), nn.Linear(4, 2), act, after
        self.bound = nn.Parameter(torch.tensor(2.0))
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.after(self.head(self.act(self, self.layer(x))))


def autocast(m, x):
    with torch.autocast("cpu", torch.bfloat16):
        return F.relu6(m.layer(x)).float()


def branch(m, x):
    return F.relu6(x) if m.bound > 0 else x


def six(m, x):
    return F.relu6(x)


CASES = {
    "autocast": (Net(autocast), "under torch.autocast", "leave autocast out of forward"),
    "a branch on a bound": (Net(branch), "a threshold of its own", "a threshold belongs into an activation"),
    "one number": (Net(six, lambda x: x.mean(1), head=nn.Linear(4, 2)), "one number for each sample", "squeeze out"),
    "TorchScript": (torch.jit.script(nn.Sequential(nn.Linear(4, 2), nn.ReLU6())), "TorchScript", "give the nn.Module"),
    "a TorchScript part": (
        nn.Sequential(torch.jit.script(nn.Linear(4, 2)), nn.ReLU6()),
        "TorchScript",
        "give the nn.Module",
    ),
}


@pytest.mark.parametrize(("model", "blocker", "fix"), CASES.values(), ids=CASES)
def test_blockers_say_what_helps(model, blocker, fix):
    (finding,) = check_model(model, torch.rand(2, 4), assume_thresholds=True).blockers
    assert blocker in present(finding.blocker) and fix in present(finding.fix)


def test_a_bound_in_a_module_of_its_own_is_captured_as_advised():
    class Clip(nn.Module):
        def __init__(self):
            super().__init__()
            self.bound = nn.Parameter(torch.tensor(0.7))

        def forward(self, x):
            return x.clamp(0, self.bound.item())

    torch.manual_seed(0)
    model, x = Net(lambda m, x: m.clip(x), clip=Clip()).eval(), torch.randn(9, 4)
    expected = model.head(model.layer(x).clamp(0, 0.7)).detach().numpy()
    np.testing.assert_allclose(ce.ann_logits(capture(model, x), x, device="cpu"), expected, atol=1e-6)


def test_a_neuron_of_another_package(monkeypatch):
    package = types.ModuleType("snntorch")
    exec("from torch import nn\nclass Leaky(nn.Module):\n    def forward(self, x): return x\n", vars(package))
    package.Leaky.__module__ = "snntorch"
    monkeypatch.setitem(sys.modules, "snntorch", package)
    (finding,) = check_model(nn.Sequential(nn.Linear(4, 4), package.Leaky()), torch.rand(2, 4)).findings
    assert finding.module == "1" and "spiking already" in present(finding.blocker)
    assert "read_nir" in present(finding.fix)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2, dilation=2),
        nn.MaxPool2d(3, dilation=2, padding=1),
    ],
)
def test_the_option_that_is_given_is_not_the_fix(pool):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU6(), pool, nn.Flatten(), nn.LazyLinear(2))
    x = torch.rand(2, 1, 8, 8)
    model(x)
    (finding,) = check_model(model, x, max_pool="average").blockers
    assert 'max_pool="exact"' in present(finding.fix) and "average pooling" in present(finding.fix)


@pytest.mark.parametrize("wrong", [1e-50, 1e-40, 1e39, [1.0, 1e-50, 1.0, 1.0]])
def test_thresholds_that_float32_does_not_hold(wrong):
    with pytest.raises(InputError, match=r"threshold of 'relu' must be from 1.18e-38 to 3.4e"):
        capture(Net(lambda m, x: F.relu(x)), torch.rand(1, 4), thresholds={"relu": wrong})


@pytest.mark.parametrize("bound", [1e-50, 1e-40])
def test_bounds_that_float32_does_not_hold(bound):
    with pytest.raises(CaptureError, match="0, not positive or not finite in float32"):
        capture(Net(lambda m, x: F.hardtanh(x, 0.0, bound)), torch.rand(1, 4))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (nn.Linear(4, 2), r"a module, Linear: capture it first"),
        (nir.NIRGraph({}, []), "a NIR graph"),
        ("out/", r"a str: .*cos_export\.load\(path\)\.network"),
    ],
)
def test_what_is_not_a_spiking_network_is_named(given, message, tmp_path):
    x = np.zeros((2, 4), np.float32)
    for entry in (
        lambda: ce.simulate(given, x, 2),
        lambda: ce.ann_logits(given, x),
        lambda: ce.calibrate(given, x, "half", 2),
        lambda: ce.quantise(given, x),
        lambda: ce.export(given, tmp_path / "out", 2, golden=x),
        lambda: ce.offset_spikes(given, x, 2),
        lambda: ce.write_nir(given, tmp_path / "a.nir"),
        lambda: ce.write_onnx(given, tmp_path / "a.onnx", 2),
    ):
        with pytest.raises(InputError, match=message):
            entry()
    assert not list(tmp_path.iterdir())


def test_one_target_need_not_be_in_a_list(tmp_path):
    x = torch.rand(4, 4)
    bundle = ce.export(capture(Net(six), x), tmp_path / "out", 2, golden=x)
    for targets in ("onnxruntime", ["onnxruntime"], ("onnxruntime",)):
        assert ce.verify(bundle, targets=targets)["onnxruntime"].passed
    with pytest.raises(InputError, match=r"no target 'onnx'"):
        ce.verify(bundle, targets="onnx")
