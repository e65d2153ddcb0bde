"""Activations of straight pieces: each network computes what the module does, with neurons that are silent at 0."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from capturing_proof import kinds, prove_relu
from hypothesis import given, settings
from hypothesis import strategies as st
from narrowing import present
from torch import nn
from torch.nn import functional as F

from calibration.thresholds import relu_thresholds
from cos_export.capturing import capture, check_model, inspect_module
from cos_export.capturing.options import check_options
from cos_export.capturing.preparing import traced_module
from cos_export.network.reparametrisation import with_current_bias
from cos_export.network.unit_thresholds import with_unit_thresholds
from cos_export.quantisation import quantise
from cos_export.quantisation.current_errors import current_errors
from cos_export.simulation import ann_logits, simulate


class Net(nn.Module):
    """A convolution, the activation, another convolution, the activation again, a head."""

    def __init__(self, act, shape=(2, 5, 5)):
        super().__init__()
        conv = nn.Conv1d if len(shape) == 2 else nn.Conv2d
        self.one, self.two, self.act = conv(shape[0], 4, 3, padding=1), conv(4, 4, 3, padding=1), act
        self.fc = nn.Linear(4 * int(np.prod(shape[1:])), 3)

    def forward(self, x):
        return self.fc(self.act(self.two(self.act(self.one(x)))).flatten(1))


def prelu(*slopes):
    module = nn.PReLU(len(slopes))
    module.weight.data = torch.tensor(slopes)
    return module


ACTIVATIONS = {
    "leaky": (nn.LeakyReLU(0.1), 4),
    "leaky in place": (nn.LeakyReLU(0.2, inplace=True), 4),
    "leaky function": (lambda z: F.leaky_relu(z, 0.3), 4),
    "leaky of slope 0": (nn.LeakyReLU(0.0), 2),
    "leaky the other way": (nn.LeakyReLU(-0.5), 4),
    "parametric": (prelu(0.25), 4),
    "parametric by channel": (prelu(0.25, -0.5, 0.0, 1.5), 4),
    "randomised in training": (nn.RReLU(0.1, 0.3), 4),
    "absolute": (torch.abs, 4),
    "absolute in place": (lambda z: z.abs_(), 4),
    "hard tanh": (nn.Hardtanh(), 4),
    "hard tanh in place": (nn.Hardtanh(-0.3, 0.5, inplace=True), 4),
    "clamp": (lambda z: z.clamp(-0.5, 0.25), 4),
    "clamp above": (lambda z: z.clamp(0.1, 0.5), 2),
    "clamp below": (lambda z: z.clamp(-0.6, -0.1), 2),
    "clamp up to 0": (lambda z: z.clamp(-0.5, 0), 2),
    "minimum": (lambda z: z.clamp(max=0.3), 2),
    "maximum": (lambda z: z.clamp(min=-0.2), 2),
    "threshold that does not jump": (nn.Threshold(-0.1, -0.1), 2),
    "hard sigmoid": (nn.Hardsigmoid(), 2),
    "soft shrink": (nn.Softshrink(0.1), 4),
}


@pytest.mark.parametrize(("act", "layers"), ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_activations(act, layers):
    network = prove_relu(Net(act), (2, 5, 5))
    assert len(network.layers) == layers


@pytest.mark.parametrize("act", [nn.LeakyReLU(0.2), prelu(0.25, -0.5, 0.0, 1.5), nn.Hardtanh()], ids=repr)
def test_signals(act):
    prove_relu(Net(act, (2, 9)), (2, 9))


@pytest.mark.parametrize("act", [nn.LeakyReLU(0.2), prelu(0.25, -0.5, 0.0, 1.5)], ids=repr)
def test_features(act):
    prove_relu(nn.Sequential(nn.Linear(6, 4), act, nn.Linear(4, 3)), (6,))


@settings(max_examples=200, deadline=None)
@given(st.floats(-3, 3), st.floats(-3, 3))
def test_any_clip_is_what_it_is_written_as(one, other):
    low, high = sorted((np.float32(one).item(), np.float32(other).item()))
    if high - low < 1e-3:
        return
    z = torch.linspace(-4, 4, 201, dtype=torch.float64)
    # The equations of the module's docstring, in plain numbers.
    if low < 0 < high:
        written = z.clamp(0, high) - (-z).clamp(0, -low)
    elif low >= 0:
        written = low + (z - low).clamp(0, high - low)
    else:
        written = high - (high - z).clamp(0, high - low)
    torch.testing.assert_close(written, z.clamp(low, high), rtol=0, atol=1e-12)


def graph(act, x):
    """What the traced graph of an activation computes once it is written anew."""
    traced = traced_module(nn.Sequential(nn.Flatten(), act), x, check_options(assume_thresholds=True))
    targets = [str(node.target) for node in traced.graph.nodes if node.op == "call_function"]
    interpreter = torch.fx.Interpreter(nn.Module(), graph=traced.graph)
    held = [traced.constants.get(node, x.clone()) for node in traced.graph.nodes if node.op == "placeholder"]
    return interpreter.run(*held)[-1], targets


SOME = [nn.Hardtanh(-0.7, 0.4), nn.Hardtanh(0.2, 0.9), nn.Hardtanh(-2, -1), prelu(0.3)]


@pytest.mark.parametrize("act", SOME, ids=repr)
def test_the_rewritten_graph_computes_the_module(act):
    x = torch.linspace(-3, 3, 60).reshape(3, 20)
    actual, targets = graph(act, x)
    with torch.no_grad():
        torch.testing.assert_close(actual, act(x), rtol=1e-6, atol=1e-6)
    assert any("relu" in target or "hardtanh" in target for target in targets)


def test_each_population_has_a_threshold_of_its_own():
    torch.manual_seed(0)
    model, x = Net(nn.LeakyReLU(0.1)).eval(), torch.rand(8, 2, 5, 5) * 2 - 0.5
    thresholds = relu_thresholds(model, x, "maximum", device="cpu")
    assert list(thresholds) == ["act", "act@1", "act@2", "act@3"]
    with torch.no_grad():
        first = model.one(x)
    np.testing.assert_allclose([thresholds["act"], thresholds["act@1"]], [first.max(), -first.min()], rtol=1e-6)


def test_findings_name_the_activation():
    x = torch.rand(1, 2, 5, 5)
    findings = [f for f in check_model(Net(nn.LeakyReLU(0.1)), x, assume_thresholds=True).findings if f.module == "act"]
    assert [(f.op, f.becomes) for f in findings[:2]] == [("leaky_relu", "IF 'act'"), ("leaky_relu", "IF 'act_1'")]
    blocked = [f for f in inspect_module(Net(nn.LeakyReLU(0.1)), x) if f.blocker]
    assert [f.op for f in blocked] == ["leaky_relu"] * 4
    assert "'act@1'" in present(blocked[1].fix)


def test_spikes_come_to_the_activation():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Hardtanh(), nn.Linear(16, 3))
    x = torch.randn(4, 6)
    network = capture(model, x)
    assert kinds(network).count("IF") == 2
    trace = simulate(network, x, 1024, device="cpu", record_spikes=False)
    np.testing.assert_allclose(trace.logits[-1], model(x).detach().numpy(), atol=1e-2)


def test_integers():
    torch.manual_seed(0)
    model, x = Net(nn.LeakyReLU(0.1)).eval(), torch.rand(16, 2, 5, 5) * 2 - 0.5
    network = capture(model, x, thresholds=relu_thresholds(model, x, "maximum", device="cpu"))
    actual = ann_logits(quantise(network, x.numpy(), steps=4, device="cpu"), x.numpy(), device="cpu")
    with torch.no_grad():
        expected = model(x).numpy()
    assert np.abs(actual - expected).max() < 0.05 * np.abs(expected).max()


def two_sided():
    torch.manual_seed(0)
    return prove_relu(Net(nn.LeakyReLU(0.1)), (2, 5, 5))


def test_a_second_population_takes_the_negative_of_the_first_ones_current():
    network = two_sided()
    assert network.predecessors["act"] == ("one",)
    assert network.predecessors["act_1"] == ("one_negated",)
    assert network.predecessors["one_negated"] == ("one",)
    negated = network.graph.nodes["one_negated"]
    np.testing.assert_array_equal(negated.weight[:, :, 0, 0], -np.eye(4))
    assert not negated.bias.any()


def test_a_second_population_reads_spikes_through_a_copy_of_its_synapses_where_that_is_smaller():
    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.act, self.fc = nn.Conv2d(2, 8, 1), nn.LeakyReLU(0.1), nn.Linear(200, 3)

        def forward(self, x):
            return self.fc(self.act(self.one(x)).flatten(1))

    network = prove_relu(Narrow(), (2, 5, 5))
    assert network.predecessors["act_1"] == ("one_scaled",)
    assert network.predecessors["one_scaled"] == network.predecessors["one"]
    np.testing.assert_array_equal(network.graph.nodes["one_scaled"].weight, -network.graph.nodes["one"].weight)


def test_a_residual_of_two_sides_takes_the_sum_once():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.act = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.PReLU()
            self.fc = nn.Linear(100, 3)

        def forward(self, x):
            x = self.act(self.one(x))
            return self.fc(self.act(x + self.two(x)).flatten(1))

    network = prove_relu(Residual(), (2, 5, 5))
    upper, lower = network.layers[-2:]
    (negated,) = network.predecessors[lower]
    assert network.predecessors[negated] == network.predecessors[upper]
    assert len(network.predecessors[upper]) > 1


def currents_of_one(network, images):
    """What the two populations of the first activation take, in float64."""
    convolved = F.conv2d(
        torch.from_numpy(images).double(),
        torch.from_numpy(network.graph.nodes["one"].weight).double(),
        torch.from_numpy(network.graph.nodes["one"].bias).double(),
        padding=1,
    ).numpy()
    node = network.graph.nodes["one_negated"]
    mixed = np.einsum("oc,bchw->bohw", node.weight[:, :, 0, 0].astype(np.float64), convolved)
    return convolved, mixed + node.bias[:, None, None]


def test_a_bias_of_one_population_leaves_the_other_alone():
    network, images = two_sided(), np.random.default_rng(0).random((3, 2, 5, 5), np.float32) - np.float32(0.5)
    bias = np.array([0.5, -0.25, 0.0, 1.0], np.float32)
    before = currents_of_one(network, images)
    for layer, added in (("act", (bias, 0 * bias)), ("act_1", (0 * bias, bias))):
        after = currents_of_one(with_current_bias(network, {layer: bias}), images)
        for old, new, expected in zip(before, after, added, strict=True):
            np.testing.assert_allclose(new - old, np.broadcast_to(expected[:, None, None], old.shape), atol=1e-6)


def test_thresholds_of_1_leave_both_populations_their_spikes():
    network, images = two_sided(), np.random.default_rng(0).random((3, 2, 5, 5), np.float32) - np.float32(0.5)
    # Powers of two, so that a division changes no bit.
    network = network.with_neurons(
        {
            name: replace(spec, threshold=np.full_like(spec.threshold, 2.0**exponent), v_init=0 * spec.v_init)
            for exponent, (name, spec) in enumerate(network.neurons.items(), -3)
        }
    )
    expected, actual = simulate(network, images, 4), simulate(with_unit_thresholds(network), images, 4)
    assert any(expected.spikes[name].any() for name in ("act", "act_1"))
    for name in network.layers:
        np.testing.assert_array_equal(actual.spikes[name], expected.spikes[name])


@pytest.mark.parametrize("options", [{}, {"per_channel": True}, {"power_of_two": True}, {"even_weights": True}])
def test_integers_hardly_change_the_current_of_either_population(options):
    network, images = two_sided(), np.random.default_rng(0).random((16, 2, 5, 5), np.float32) - np.float32(0.5)
    integers = quantise(network, images, steps=4, device="cpu", **options)
    errors = current_errors(network, integers, images, 4, torch.device("cpu"))
    assert max(errors[name] for name in network.layers) < 0.03
    # Where scales are not free to be alike, a copy of the synapse takes the input in place of its current.
    (negated,) = integers.predecessors["act_1"]
    assert integers.predecessors[negated] == (("input",) if options else ("one",))


def test_integers_of_a_residual():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.act = (
                nn.Conv2d(2, 4, 3, padding=1),
                nn.Conv2d(4, 4, 3, padding=1),
                nn.LeakyReLU(0.1),
            )
            self.fc = nn.Linear(100, 3)

        def forward(self, x):
            x = self.act(self.one(x))
            return self.fc(self.act(x + self.two(x)).flatten(1))

    torch.manual_seed(0)
    model, x = Residual().eval(), torch.rand(16, 2, 5, 5) * 2 - 0.5
    network = capture(model, x, thresholds=relu_thresholds(model, x, "maximum", device="cpu"))
    actual = ann_logits(quantise(network, x.numpy(), steps=4, device="cpu"), x.numpy(), device="cpu")
    with torch.no_grad():
        expected = model(x).numpy()
    assert np.abs(actual - expected).max() < 0.1 * np.abs(expected).max()


def test_overwriting_what_is_read_again_is_refused():
    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(2, 4, 3), nn.Linear(36, 3)

        def forward(self, x):
            y = self.conv(x)
            z = y.view_as(y)
            F.leaky_relu_(y, 0.1)
            return self.fc(F.relu(z).flatten(1))

    thresholds = dict.fromkeys(("leaky_relu", "leaky_relu@1", "relu"), 1.0)
    blockers = [f for f in inspect_module(Again(), torch.rand(1, 2, 5, 5), thresholds=thresholds) if f.blocker]
    assert [f.op for f in blockers] == ["leaky_relu_"]
    assert "read again" in present(blockers[0].blocker)


OTHERS = [nn.GELU(), nn.SiLU(), nn.Tanh(), nn.ELU(), nn.Hardswish(), nn.Softplus(), nn.Threshold(0.5, 0.0)]
OTHERS += [nn.Hardshrink(), nn.Softsign()]


@pytest.mark.parametrize("act", OTHERS, ids=repr)
def test_curved_and_jumping_activations_are_refused(act):
    result = check_model(nn.Sequential(nn.Linear(6, 4), act, nn.Linear(4, 2)), torch.rand(1, 6))
    assert [f.module for f in result.blockers][:1] == ["1"]
