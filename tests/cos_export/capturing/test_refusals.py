"""Every refusal names the module, the operation, the reason and the remedy, and none hides another."""

import numpy as np
import pytest
import torch
from narrowing import present
from torch import nn
from torch.nn import functional as F

from cos_export.capturing import capture, inspect_module
from cos_export.errors import CaptureError, InputError
from cos_export.qcfs import QCFS


class Net(nn.Module):
    """Convolution, activation, what is under test, head."""

    def __init__(self, between, flat=None, **modules):
        super().__init__()
        self.conv, self.act = nn.Conv2d(2, 4, 3, padding=1), QCFS(4)
        for name, module in modules.items():
            setattr(self, name, module)
        self.between = between
        self.head = nn.LazyLinear(3) if flat is None else nn.Linear(flat, 3)
        if flat is None:
            self.eval()
            with torch.no_grad():
                self(torch.zeros(2, 2, 8, 8))

    def forward(self, x):
        return self.head(self.between(self, self.act(self.conv(x))).flatten(1))


def blockers(model, shape=(2, 2, 8, 8)):
    """The blocking findings; that `capture` raises with all of them is checked on the way."""
    x = torch.rand(shape)
    findings = [f for f in inspect_module(model, x) if f.blocker is not None]
    with pytest.raises(CaptureError) as raised:
        capture(model, x)
    for finding in findings:
        assert str(finding) in str(raised.value)
        assert finding.fix
        assert finding.becomes == ""
    return findings


def one(model, shape=(2, 2, 8, 8)):
    findings = blockers(model, shape)
    assert len(findings) == 1, findings
    return findings[0]


ACTIVATIONS = [nn.ReLU(), nn.ReLU(inplace=True), nn.GELU(), nn.SiLU(), nn.Sigmoid()]


@pytest.mark.parametrize("layer", [*ACTIVATIONS, nn.Tanh(), nn.ELU(), nn.Softplus()], ids=repr)
def test_other_activations(layer):
    finding = one(Net(lambda m, x: m.block(x), block=nn.Sequential(nn.Identity(), layer)))
    assert finding.module == "block.1"
    assert "QCFS" in finding.fix


def test_a_functional_activation_is_found_at_its_line():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.a = nn.Linear(6, 4), QCFS(4)

        def forward(self, x):
            x = self.a(self.linear(x))
            return F.relu(x)

    finding = one(Functional(), (2, 6))
    assert (finding.module, finding.op) == ("", "relu")
    file, number, code = finding.line.split(":", 2)
    assert file == __file__
    assert int(number) > 1
    assert code == " return F.relu(x)"


REFUSED = {
    "adaptive max pooling": (lambda m, x: F.adaptive_max_pool2d(x, 3), "adaptive_max_pool2d", "divides"),
    "layer norm": (lambda m, x: F.layer_norm(x, (8, 8)), "layer_norm", "BatchNorm"),
    "group norm": (lambda m, x: F.group_norm(x, 2), "group_norm", "BatchNorm"),
    "softmax": (lambda m, x: F.softmax(x, 1), "softmax", "remove it"),
    "pad": (lambda m, x: F.pad(x, (1, 1, 1, 1), mode="replicate"), "pad", "padding="),
    "resize": (lambda m, x: F.interpolate(x, scale_factor=2), "upsample_nearest2d", "strides"),
    "gate": (lambda m, x: x * x.mean((2, 3), keepdim=True), "mul", "gate"),
    "constant image": (lambda m, x: x + torch.arange(64.0).view(8, 8), "add", "one number for each channel"),
    "division by a signal": (lambda m, x: 1 / (x + x), "reciprocal", "known are"),
    "unknown": (lambda m, x: torch.erf(x), "erf", "known are"),
    "random": (lambda m, x: F.dropout(x, training=True), "dropout", "self.training"),
    "ceil mode": (lambda m, x: F.avg_pool2d(x, 3, 2, ceil_mode=True), "avg_pool2d", "ceil_mode=False"),
    "border": (
        lambda m, x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
        "avg_pool2d",
        "count_include_pad=True",
    ),
    "uneven windows": (lambda m, x: F.adaptive_avg_pool2d(x, 3), "adaptive_avg_pool2d", "divides"),
    "split axes": (lambda m, x: x.reshape(-1, 2, 2, 64), "reshape", "x.flatten(1)"),
    "another dtype": (lambda m, x: x.double().float(), "to", "float32"),
    "sum over the batch": (lambda m, x: x + x.sum(0, keepdim=True), "sum", "axis 0"),
    "mean over the batch": (lambda m, x: x - x.mean(0, keepdim=True), "mean", "(2, 3)"),
    "samples flipped": (lambda m, x: x.flip(0), "flip", "flatten"),
    "batch norm that trains": (
        lambda m, x: F.batch_norm(x, torch.zeros(4), torch.ones(4), training=True),
        "batch_norm",
        "track_running_stats",
    ),
}


@pytest.mark.parametrize(("between", "op", "fix"), REFUSED.values(), ids=REFUSED)
def test_refusals(between, op, fix):
    findings = [f for f in inspect_module(Net(between), torch.rand(1, 2, 8, 8)) if f.op == op and f.blocker]
    assert findings
    assert fix in present(findings[0].fix)
    assert findings[0].module == ""
    assert present(findings[0].line).startswith(__file__)


def test_padding_modes_other_than_zeros():
    finding = one(Net(lambda m, x: m.a(m.c(x)), c=nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), a=QCFS(4)))
    assert finding.module == "c"
    assert "padding_mode='zeros'" in finding.fix


def test_batch_norm_without_running_statistics():
    finding = one(Net(lambda m, x: m.bn(x), bn=nn.BatchNorm2d(4, track_running_stats=False)))
    assert (finding.module, finding.op) == ("bn", "batch_norm")
    assert "track_running_stats=True" in finding.fix


def test_linear_along_the_last_axis_of_an_image():
    finding = one(Net(lambda m, x: m.linear(x), linear=nn.Linear(8, 8)))
    assert (finding.module, finding.op) == ("linear", "linear")
    assert "flatten" in finding.fix


def test_an_operation_in_a_nested_module():
    finding = one(Net(lambda m, x: m.features(x), features=nn.Sequential(nn.Sequential(nn.AdaptiveMaxPool2d(3)))))
    assert finding.module == "features.0.0"
    assert str(finding).startswith("features.0.0: adaptive_max_pool2d: its windows")


def test_all_blockers_are_named_at_once():
    model = Net(
        lambda m, x: m.relu2(m.norm(m.pool(m.relu1(x)))),
        relu1=nn.ReLU(),
        pool=nn.AdaptiveMaxPool2d(3),
        norm=nn.GroupNorm(2, 4),
        relu2=nn.ReLU(),
    )
    assert [f.module for f in blockers(model)] == ["relu1", "pool", "norm", "relu2"]
    with pytest.raises(CaptureError, match=r"Net cannot be turned .* 4 things must change"):
        capture(model, torch.rand(1, 2, 8, 8))


def test_what_follows_a_blocker_is_still_reported_as_convertible():
    findings = inspect_module(Net(lambda m, x: F.relu(x)), torch.rand(1, 2, 8, 8))
    assert [(f.op, bool(f.becomes)) for f in findings][2:] == [("relu", False), ("flatten", True), ("linear", True)]


def test_what_follows_a_lost_batch_axis_is_not_blamed():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.a, self.last = nn.Linear(6, 4), QCFS(4), nn.Linear(4, 4)

        def forward(self, x):
            flat = self.a(self.linear(x)).flatten(0)
            return self.last(torch.sigmoid(flat + flat).reshape(-1, 4))

    findings = inspect_module(Mixed(), torch.rand(2, 6))
    assert [f.op for f in findings if f.blocker] == ["flatten", "sigmoid"]
    assert "keep the batch axis" in next(f.blocker for f in findings if f.blocker)
    assert [f.op for f in findings if "not checked" in f.becomes] == ["add", "reshape"]


@pytest.mark.parametrize("threshold", [0.0, -0.5, float("nan")])
def test_a_threshold_that_is_not_positive(threshold):
    model = Net(lambda m, x: x)
    model.act.threshold.data.fill_(threshold)
    finding = one(model)
    assert (finding.module, finding.op) == ("act", "qcfs")
    assert "must be a positive number" in finding.blocker


def test_weights_that_are_not_finite():
    model = Net(lambda m, x: x)
    model.head.weight.data[0, 0] = float("nan")
    assert one(model).module == "head"


def test_a_factor_that_no_weight_can_hold():
    class Huge(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.a = nn.Linear(6, 4), QCFS(4)

        def forward(self, x):
            return self.a(self.linear(x)) * 1e30 * 1e30

    finding = one(Huge(), (2, 6))
    assert finding.op == "output"
    assert "not finite in float32" in finding.blocker


def test_a_batch_norm_that_makes_weights_infinite():
    norm = nn.BatchNorm2d(4, eps=0.0)
    model = Net(lambda m, x: m.bn(m.conv2(x)), conv2=nn.Conv2d(4, 4, 1), bn=norm)
    present(norm.running_var).zero_()
    findings = blockers(model)
    assert any(f.module == "bn" and "running variance" in f.fix for f in findings)


def test_a_model_without_qcfs():
    finding = one(nn.Sequential(nn.Flatten(), nn.Linear(128, 3)))
    assert "no QCFS activation" in finding.blocker


def test_several_outputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.a = nn.Linear(6, 4), QCFS(4)

        def forward(self, x):
            x = self.a(self.linear(x))
            return x, 2 * x

    assert "returns 2 values" in one(Two(), (2, 6)).blocker


def test_an_output_that_ignores_the_input():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.a = nn.Linear(6, 4), QCFS(4)

        def forward(self, x):
            self.a(self.linear(x))
            return self.linear.weight

    assert any("does not depend on the input" in f.blocker for f in blockers(Constant(), (2, 6)))


def test_several_inputs():
    class Pair(nn.Module):
        def forward(self, x, y):
            return x + y

    finding = one(Pair(), (2, 6))
    assert finding.op == "forward"
    assert "missing 1 required positional argument" in finding.blocker


def test_an_example_of_the_wrong_shape():
    finding = one(nn.Sequential(nn.Linear(5, 4), QCFS(4)), (2, 6))
    assert finding.op == "forward"
    assert "fails on 3 copies of the example" in finding.blocker


def test_a_batch_size_written_into_the_model():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.a, self.last = nn.Linear(6, 4), QCFS(4), nn.Linear(4, 3)

        def forward(self, x):
            return self.last(self.a(self.linear(x)).view(2, 4))

    finding = one(Fixed(), (2, 6))
    assert finding.op == "forward"
    assert finding.line.endswith("view(2, 4))")
    assert "any batch size" in finding.fix


def test_control_flow_that_depends_on_values():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.a = nn.Linear(6, 4), QCFS(4)

        def forward(self, x):
            x = self.a(self.linear(x))
            if x.sum() > 0:
                x = x * 2
            return x

    finding = one(Branch(), (2, 6))
    assert finding.op == "torch.export"
    assert "do the same for every input" in finding.fix
    assert finding.line is None or __file__ in finding.line


def test_in_place_on_what_is_read_again():
    def between(m, x):
        y = m.c(x)
        z = y.view_as(y)
        y += x
        return z + y

    findings = blockers(Net(between, c=nn.Conv2d(4, 4, 1)))
    assert [f.op for f in findings] == ["add_"]
    assert "read again" in findings[0].blocker


def test_state_kept_between_calls():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.a = nn.Linear(6, 4), QCFS(4)
            self.calls = nn.Buffer(torch.zeros(()))

        def forward(self, x):
            self.calls.add_(1)
            return self.a(self.linear(x))

    assert "changes a buffer" in one(Counting(), (2, 6)).blocker


def test_a_model_in_another_precision():
    model = nn.Sequential(nn.Linear(6, 4), QCFS(4)).double()
    finding = one(model, (2, 6))
    assert "0.weight (float64)" in finding.blocker
    assert "model.float()" in finding.fix


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.zeros(2, 6, dtype=torch.int64), "must be uint8 or of a float type, and are int64"),
        (np.zeros((2, 6), np.bool_), "must be uint8 or of a float type, and are bool"),
        (torch.full((2, 6), float("nan")), "not finite numbers in float32 .* first in sample 0"),
        (torch.zeros(6), "has shape"),
        (torch.zeros(2, 1, 2, 3, 4), "has shape"),
        (torch.zeros(0, 6), "There are no images"),
        ((torch.zeros(2, 6), torch.zeros(2, 6)), "is a tuple"),
        ({"x": torch.zeros(2, 6)}, "is a dict"),
    ],
)
def test_examples_that_cannot_be_used(example, message):
    with pytest.raises(InputError, match=message):
        capture(nn.Sequential(nn.Linear(6, 4), QCFS(4)), example)
