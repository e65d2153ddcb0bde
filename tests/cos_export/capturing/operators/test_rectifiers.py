"""ReLUs of any spelling become neurons that are clipped at their threshold."""

import numpy as np
import pytest
import torch
from capturing_proof import compare, prove_relu, randomise
from narrowing import of_type, present
from torch import nn
from torch.nn import functional as F

from calibration.thresholds import relu_thresholds
from cos_export.capturing import capture, inspect_module
from cos_export.errors import CaptureError, InputError
from cos_export.simulation import ann_logits, simulate


class Net(nn.Module):
    """Convolution, an activation as a function of the module and a value, head."""

    def __init__(self, act, **modules):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.act = act
        for name, module in modules.items():
            setattr(self, name, module)
        self.head = nn.Linear(256, 3)

    def forward(self, x):
        return self.head(self.act(self, self.norm(self.conv(x))).flatten(1))


UNBOUNDED = {
    "module": lambda m, x: m.relu(x),
    "F.relu": lambda m, x: F.relu(x),
    "torch.relu": lambda m, x: torch.relu(x),
    "method": lambda m, x: x.relu(),
    "in place": lambda m, x: F.relu(x, inplace=True),
    "method in place": lambda m, x: x.relu_(),
    "clamp": lambda m, x: x.clamp(min=0),
    "clamp in place": lambda m, x: x.clamp_(min=0.0),
    "clamp_min": lambda m, x: torch.clamp_min(x, 0),
    "clip": lambda m, x: torch.clip(x, min=0),
    "threshold": lambda m, x: F.threshold(x, 0.0, 0.0),
}


@pytest.mark.parametrize("act", UNBOUNDED.values(), ids=UNBOUNDED)
def test_spellings_of_relu(act):
    network = prove_relu(Net(act, relu=nn.ReLU()))
    (spec,) = network.neurons.values()
    assert spec.levels is None
    np.testing.assert_array_equal(spec.v_init, spec.threshold / 2)


BOUNDED = {
    "ReLU6": (lambda m, x: nn.ReLU6()(x), 6.0),
    "F.relu6": (lambda m, x: F.relu6(x), 6.0),
    "hardtanh": (lambda m, x: F.hardtanh(x, 0.0, 0.5), 0.5),
    "hardtanh in place": (lambda m, x: F.hardtanh(x, 0.0, 0.5, inplace=True), 0.5),
    "clamp": (lambda m, x: x.clamp(0, 0.75), 0.75),
    "clip": (lambda m, x: torch.clip(x, 0, 2), 2.0),
}


@pytest.mark.parametrize(("act", "bound"), BOUNDED.values(), ids=BOUNDED)
def test_a_bounded_relu_has_its_bound_as_threshold_and_needs_no_data(act, bound):
    torch.manual_seed(0)
    model, x = randomise(Net(act).eval()), torch.rand(4, 2, 8, 8) * 4 - 1
    network = capture(model, x)
    compare(network, model, x)
    (spec,) = network.neurons.values()
    assert (spec.threshold == np.float32(bound)).all()


def test_a_bounded_relu_takes_a_lower_threshold_but_no_higher_one():
    model = Net(lambda m, x: m.six(x), six=nn.ReLU6())
    for given, expected in ((1.5, 1.5), (9.0, 6.0)):
        (spec,) = capture(model, torch.rand(1, 2, 8, 8), thresholds={"six": given}).neurons.values()
        assert (spec.threshold == np.float32(expected)).all()


@pytest.mark.parametrize(
    "act", [lambda m, x: F.threshold(x, 0.1, 0.0), lambda m, x: x.clamp(1, 1), lambda m, x: x.clamp(2, 1)]
)
def test_other_clamps_are_refused(act):
    (finding,) = [f for f in inspect_module(Net(act), torch.rand(1, 2, 8, 8)) if f.blocker]
    assert "nn.ReLU" in present(finding.fix)


# --- thresholds ---------------------------------------------------------------------------------------


def test_a_relu_without_threshold_says_how_to_get_one():
    with pytest.raises(CaptureError, match=r"relu_thresholds\(model, images\), which finds one for 'relu'"):
        capture(Net(lambda m, x: m.relu(x), relu=nn.ReLU()), torch.rand(1, 2, 8, 8))


def test_thresholds_clip():
    torch.manual_seed(0)
    model, x = randomise(Net(lambda m, x: F.relu(x)).eval()), torch.rand(4, 2, 8, 8) * 4 - 1
    capped = Net(lambda m, x: x.clamp(0, 0.3)).eval()
    capped.load_state_dict(model.state_dict())
    compare(capture(model, x, thresholds={"relu": 0.3}), capped, x)


def test_thresholds_by_channel_clip_each_channel():
    torch.manual_seed(0)
    bounds = [0.2, 0.4, 0.8, 0.1]
    column = torch.tensor(bounds).reshape(-1, 1, 1)
    model, x = randomise(Net(lambda m, x: F.relu(x)).eval()), torch.rand(4, 2, 8, 8) * 4 - 1
    network = capture(model, x, thresholds={"relu": bounds})
    capped = Net(lambda m, x: torch.minimum(F.relu(x), column)).eval()
    capped.load_state_dict(model.state_dict())
    compare(network, capped, x)
    threshold = network.neurons["relu"].threshold
    np.testing.assert_array_equal(threshold[:, 0, 0], np.array(bounds, np.float32))
    np.testing.assert_array_equal(threshold[:, 5, 3], np.array(bounds, np.float32))


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({"nowhere": 1.0}, r"no ReLU 'nowhere'.*There are 'relu'"),
        ({"relu": 0.0}, "positive and finite"),
        ({"relu": [1.0, np.nan, 1.0, 1.0]}, "positive and finite"),
        ({"relu": np.ones((2, 2))}, "one number or one for each channel"),
        ({"relu": "high"}, "one number or one for each channel"),
    ],
)
def test_thresholds_that_cannot_be_used(thresholds, message):
    with pytest.raises(InputError, match=message):
        capture(Net(lambda m, x: F.relu(x)), torch.rand(1, 2, 8, 8), thresholds=thresholds)


def test_as_many_thresholds_as_channels():
    with pytest.raises(CaptureError, match="it has 4 channels, and 3 thresholds were given"):
        capture(Net(lambda m, x: F.relu(x)), torch.rand(1, 2, 8, 8), thresholds={"relu": [1.0, 1.0, 1.0]})


def test_levels_and_max_pool_are_checked():
    model, x = Net(lambda m, x: F.relu(x)), torch.rand(1, 2, 8, 8)
    with pytest.raises(InputError, match="levels"):
        capture(model, x, levels=0)
    with pytest.raises(InputError, match="max_pool"):
        capture(model, x, max_pool="median")  # type: ignore[arg-type]


def test_a_relu_that_is_called_twice_has_two_thresholds():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head, self.relu = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3), nn.ReLU(True)

        def forward(self, x):
            return self.head(self.relu(self.b(self.relu(self.a(x)))))

    network = prove_relu(Twice(), (6,))
    assert list(network.neurons) == ["relu", "relu_1"]
    thresholds = {"relu": 1.0, "relu@1": 2.0}
    specs = capture(Twice(), torch.rand(1, 6), thresholds=thresholds).neurons
    assert [spec.threshold[0] for spec in specs.values()] == [1.0, 2.0]


class Mixed(nn.Module):
    """Four linear layers, and what stands behind each of the first three."""

    def __init__(self, acts, **modules):
        super().__init__()
        self.first, self.second, self.third, self.head = (nn.Linear(6, 6) for _ in range(4))
        self.acts = acts
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        for layer, act in zip((self.first, self.second, self.third), self.acts, strict=True):
            x = act(self, layer(x))
        return self.head(x)


class Functional(nn.Module):
    def forward(self, x):
        return F.relu(x)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(F.relu(x) * 0.5)


def function(m, x):
    return F.relu(x)


def module(m, x):
    return m.relu(x)


KEYS = {
    "a function before a module": ((function, module, function), {"relu": nn.ReLU()}, "relu() relu relu()@1"),
    "a module before a function": ((module, function, module), {"relu": nn.ReLU()}, "relu relu() relu@1"),
    "functions alone": ((function, function, function), {}, "relu relu@1 relu@2"),
    "a function inside a module": ((function, module, module), {"relu": Functional()}, "relu() relu relu@1"),
    "a module that holds the ReLU": (
        (function, module, module),
        {"relu": nn.Sequential(nn.ReLU())},
        "relu() relu.0 relu.0@1",
    ),
    "a clamp": (
        (lambda m, x: x.clamp(min=0), lambda m, x: m.clamp(x), function),
        {"clamp": nn.ReLU()},
        "clamp() clamp relu",
    ),
    "inside a block": (
        (lambda m, x: m.block(x), function, lambda m, x: m.block(x)),
        {"block": Block()},
        "block.relu() block.relu relu block.relu()@1 block.relu@1",
    ),
}


@pytest.mark.parametrize(("acts", "modules", "keys"), KEYS.values(), ids=KEYS)
def test_the_path_of_a_module_is_the_key_of_nothing_else(acts, modules, keys):
    torch.manual_seed(0)
    model, x = Mixed(acts, **modules).eval(), torch.randn(200, 6)
    assert list(relu_thresholds(model, x, "maximum", device="cpu")) == keys.split()
    capture(model, x, thresholds=dict.fromkeys(keys.split(), 1.0))


def test_the_threshold_of_a_module_clips_the_module():
    torch.manual_seed(0)
    model, x = Mixed((function, module, function), relu=nn.ReLU()).eval(), torch.randn(50, 6)
    thresholds = {"relu()": 0.7, "relu": 0.2, "relu()@1": 0.4}
    bounds = iter([0.7, 0.2, 0.4])
    clipped = x
    for layer in (model.first, model.second, model.third):
        clipped = layer(clipped).clamp(0, next(bounds))
    expected = model.head(clipped).detach().numpy()
    np.testing.assert_allclose(
        ann_logits(capture(model, x, thresholds=thresholds), x, device="cpu"), expected, atol=1e-6
    )
    # What data say of the module is the largest that its own layer gives.
    largest = model.second(F.relu(model.first(x))).max()
    assert relu_thresholds(model, x, "maximum", device="cpu")["relu"] == pytest.approx(float(largest), rel=1e-6)


def test_the_layer_of_a_module_has_its_name():
    network = capture(
        Mixed((function, module, function), relu=nn.ReLU6()),
        torch.rand(1, 6),
        thresholds={"relu()": 2.0, "relu()@1": 3.0},
    )
    assert {name: float(spec.threshold[0]) for name, spec in network.neurons.items()} == {
        "relu_function": 2.0,
        "relu": 6.0,
        "relu_function_1": 3.0,
    }


# --- a scale for each channel, through every operation ------------------------------------------------


class Through(nn.Module):
    def __init__(self, between, shape=(2, 8, 8), **modules):
        super().__init__()
        conv = nn.Conv2d if len(shape) == 3 else nn.Conv1d
        self.stem = conv(shape[0], 4, 3, padding=1)
        for name, module in modules.items():
            setattr(self, name, module)
        self.between = between
        self.eval()
        with torch.no_grad():
            features = between(self, self.stem(torch.zeros(1, *shape))).numel()
        self.head = nn.Linear(features, 3)

    def forward(self, x):
        return self.head(self.between(self, F.relu(self.stem(x))).flatten(1))


def conv(*args, **options):
    return {"conv": nn.Conv2d(*args, **options)}


WAYS = {
    "convolution": (lambda m, x: F.relu(m.conv(x)), conv(4, 6, 3)),
    "groups": (lambda m, x: F.relu(m.conv(x)), conv(4, 6, 3, groups=2)),
    "depthwise": (lambda m, x: F.relu(m.conv(x)), conv(4, 8, 3, padding=2, dilation=2, groups=4)),
    "average pooling": (lambda m, x: F.avg_pool2d(x, 2), {}),
    "global pooling and linear": (lambda m, x: F.relu(m.fc(x.mean((2, 3)))), {"fc": nn.Linear(4, 5)}),
    "flatten and linear": (lambda m, x: F.relu(m.fc(x.flatten(1))), {"fc": nn.Linear(256, 5)}),
    "flatten in two steps": (lambda m, x: F.relu(m.fc(x.flatten(2).flatten(1))), {"fc": nn.Linear(256, 5)}),
    "batch norm": (lambda m, x: F.relu(m.norm(x)), {"norm": nn.BatchNorm2d(4)}),
    "identity shortcut": (lambda m, x: F.relu(m.conv(x) + x), conv(4, 4, 3, padding=1)),
    "sum before a convolution": (lambda m, x: F.relu(m.conv(F.relu(m.conv(x)) + x)), conv(4, 4, 3, padding=1)),
    "sum before a pool": (lambda m, x: F.avg_pool2d(F.relu(m.conv(x)) + x, 2), conv(4, 4, 3, padding=1)),
    "factor": (lambda m, x: F.relu(m.conv(x * 0.5) - x / 3), conv(4, 4, 1)),
    "nothing between": (lambda m, x: F.relu(x), {}),
}


@pytest.mark.parametrize(("between", "modules"), WAYS.values(), ids=WAYS)
def test_a_threshold_for_each_channel(between, modules):
    network = prove_relu(Through(between, **modules), per_channel=True)
    assert len(np.unique(network.neurons["relu"].threshold)) > 1


@pytest.mark.parametrize("pool", [nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(1)])
def test_a_threshold_for_each_channel_over_one_axis(pool):
    shape = (2, 12)
    prove_relu(
        Through(lambda m, x: F.relu(m.c(m.pool(x))), shape, c=nn.Conv1d(4, 4, 1), pool=pool), shape, per_channel=True
    )


def test_a_threshold_for_each_feature():
    model = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    network = prove_relu(model, (6,), per_channel=True)
    assert network.neurons["layer_2"].threshold.shape == (12,)


def test_spikes_as_output_with_a_threshold_for_each_feature():
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3), nn.ReLU())
    of_type(model[2], nn.Linear).bias.data.fill_(1.0)
    network = prove_relu(model, (6,), per_channel=True)
    carrier = network.graph.nodes[network.predecessors["output"][0]]
    np.testing.assert_array_equal(np.diag(carrier.weight), network.neurons["layer_3"].threshold)


# --- spikes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_channel", [False, True])
def test_many_steps_converge_to_the_module(per_channel):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 4)
    )
    x = torch.rand(5, 2, 8, 8) * 2 - 0.5
    thresholds = relu_thresholds(model, x, "maximum", per_channel=per_channel, device="cpu")
    network = capture(model, x, thresholds=thresholds)
    expected = model(x).detach().numpy()
    off = [
        np.abs(simulate(network, x, steps, device="cpu", record_spikes=False).logits[-1] - expected).max()
        for steps in (8, 64, 1024)
    ]
    assert off[2] < off[1] < off[0]
    assert off[2] < 2e-3 * np.abs(expected).max() + 2e-3
