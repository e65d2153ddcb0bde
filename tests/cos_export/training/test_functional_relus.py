"""ReLUs that forward calls as functions become QCFS modules, one for each call."""

import copy
import json

import numpy as np
import pytest
import torch
from narrowing import of_type
from safetensors import safe_open
from safetensors.torch import save_file
from torch import fx, nn
from torch.nn import functional

from cos_export import zoo
from cos_export.capturing import capture
from cos_export.datasets import Dataset
from cos_export.errors import InputError
from cos_export.qcfs import QCFS
from cos_export.simulation import ann_logits
from cos_export.training import Recipe, save_checkpoint, swap_activations, train

IMAGES = np.random.default_rng(0).random((60, 1, 6, 6), np.float32)
LABELS = (IMAGES.mean((1, 2, 3)) > 0.5).astype(np.int64)


class Block(nn.Module):
    """Two calls, under a name that a call would get taken by a convolution."""

    def __init__(self):
        super().__init__()
        self.relu, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return functional.relu(x + self.second(functional.relu(self.relu(x), inplace=True)))


class Net(nn.Module):
    """Every spelling, a module, a block that is used twice, and dropout that depends on the mode."""

    def __init__(self):
        super().__init__()
        self.first, self.block = nn.Conv2d(1, 4, 3, padding=1), Block()
        self.act: nn.Module = nn.ReLU()
        self.hidden = nn.ModuleList([nn.Linear(144, 8), nn.Linear(8, 8), nn.Linear(8, 8)])
        self.readout = nn.Linear(8, 2)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = self.act(self.block(self.block(x))).flatten(1)
        x = self.hidden[0](x).relu_()
        x = self.hidden[1](x).clamp(min=0)
        x = self.hidden[2](x).relu()
        return self.readout(functional.dropout(x, 0.5, self.training))


PATHS = ["act", "relu", "block.relu_1", "block.relu_2", "block.relu_3", "block.relu_4", "relu_1", "relu_2", "relu_3"]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


def test_each_call_gets_a_threshold_from_its_own_outputs(net):
    seen = []
    with torch.no_grad():
        x = torch.relu(net.first(torch.from_numpy(IMAGES)))
        seen.append(x)
        for _ in range(2):
            inner = torch.relu(net.block.relu(x))
            x = torch.relu(x + net.block.second(inner))
            seen += [inner, x]
        x = x.flatten(1)
        for layer in net.hidden:
            x = torch.relu(layer(x))
            seen.append(x)
    thresholds = swap_activations(net, IMAGES, 8, percentile=100)
    assert list(thresholds) == PATHS
    expected = [float(one.max()) for one in seen]
    assert [thresholds[path] for path in PATHS[1:]] == pytest.approx(expected)
    assert thresholds["act"] == thresholds["block.relu_4"]
    assert all(isinstance(net.get_submodule(path), QCFS) for path in PATHS)
    assert {f"{path}.threshold" for path in PATHS} <= set(net.state_dict())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_many_levels_change_little_and_the_result_can_be_captured_and_copied(net):
    images = torch.from_numpy(IMAGES)
    with torch.no_grad():
        before = net(images).numpy()
        swap_activations(net, images, 1024, percentile=100)
        after = net(images).numpy()
        np.testing.assert_array_equal(copy.deepcopy(net)(images).numpy(), after)
    np.testing.assert_allclose(after, before, atol=0.01)
    network = capture(net, IMAGES[:1])
    assert len(network.layers) == len(PATHS)
    np.testing.assert_allclose(ann_logits(network, IMAGES, device="cpu"), after, atol=1e-5)


def test_few_levels_are_those_of_each_call(net):
    """What a hand-written network with the same QCFS computes."""
    swap_activations(net, IMAGES, 2, percentile=90)
    with torch.no_grad():
        x = net.relu(net.first(torch.from_numpy(IMAGES)))
        x = net.block.relu_2(x + net.block.second(net.block.relu_1(net.block.relu(x))))
        x = net.block.relu_4(x + net.block.second(net.block.relu_3(net.block.relu(x))))
        x = net.act(x).flatten(1)
        for layer, act in zip(net.hidden, (net.relu_1, net.relu_2, net.relu_3), strict=True):
            x = act(layer(x))
        assert torch.equal(net(torch.from_numpy(IMAGES)), net.readout(x))


@pytest.mark.parametrize(
    ("clamp", "swapped"),
    [
        (lambda x: torch.clamp(x, 0), 1),
        (lambda x: torch.clip(x, 0.0, None), 1),
        (lambda x: x.clamp_(min=0), 1),
        (lambda x: torch.clamp_min(x, 0), 1),
        (lambda x: x.clamp_min_(min=0.0), 1),
        (lambda x: x.clamp(min=0, max=6), 0),
        (lambda x: x.clamp(max=0), 0),
        (lambda x: x.clamp(min=0.5), 0),
        (lambda x: torch.clamp(x, min=torch.zeros(1)), 0),
        (lambda x: torch.clamp(x.detach(), 0, out=torch.empty(0)), 0),
    ],
)
def test_a_clamp_at_0_is_a_relu_and_no_other_is(clamp, swapped):
    class Clamped(nn.Sequential):
        def forward(self, x):
            return torch.relu(1 + clamp(10 * super().forward(x)))

    torch.manual_seed(0)
    assert len(swap_activations(Clamped(nn.Flatten(), nn.Linear(36, 8)), IMAGES)) == 1 + swapped


def test_thresholds_are_trained_and_dropout_knows_its_mode(net):
    thresholds = swap_activations(net, IMAGES, 4)
    net.train()
    images = torch.from_numpy(IMAGES)
    assert not torch.equal(net(images), net(images))
    train(net, Dataset(IMAGES, LABELS, "random", "none"), Recipe(1, 0.05, 20), device="cpu")
    moved = [net.get_submodule(path).threshold.item() != thresholds[path] for path in PATHS]
    assert sum(moved) >= len(PATHS) - 1
    assert torch.equal(net(images), net(images))


def test_a_checkpoint_is_loaded_into_the_network_as_its_factory_builds_it(net, tmp_path):
    data = Dataset(IMAGES, LABELS, "random", "none")
    thresholds = swap_activations(net, IMAGES, 3)
    result = train(net, data, Recipe(1, 0.05, 20), device="cpu")
    start = {"levels": 3, "swapped": thresholds}
    path = save_checkpoint(net, tmp_path / "n.safetensors", result, name="net", start=start)
    with safe_open(path, "pt") as file:
        held = json.loads(file.metadata()["training"])["functional_relus"]
    assert held == [[name, 3] for name in PATHS[1:]]
    again = Net().eval()
    zoo.load_weights(again, path)
    zoo.load_weights(again, path)
    assert torch.equal(again(torch.from_numpy(IMAGES)), net(torch.from_numpy(IMAGES)))


class Other(Net):
    """A network of the same weights that calls one function less."""

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = self.act(self.block(self.block(x))).flatten(1)
        for layer in self.hidden:
            x = layer(x)
        return self.readout(x.relu())


def test_a_file_that_does_not_fit_leaves_the_network_as_it_was(net, tmp_path):
    swap_activations(net, IMAGES)
    result = train(net, Dataset(IMAGES, LABELS, "random", "none"), Recipe(1, 0.05, 20), device="cpu")
    path = save_checkpoint(net, tmp_path / "n.safetensors", result, name="net")
    narrow = Net()
    narrow.readout = nn.Linear(9, 2)
    kind, keys = type(narrow), list(narrow.state_dict())
    with pytest.raises(InputError, match=r"wrong shape: readout\.weight"):
        zoo.load_weights(narrow, path)
    assert type(narrow) is kind
    assert list(narrow.state_dict()) == keys
    with pytest.raises(InputError, match=r"has no place for an activation at 'block\.relu_1'"):
        zoo.load_weights(nn.Sequential(nn.Linear(3, 3)), path)
    other = Other()
    other.act = QCFS(4)
    zoo.load_weights(other, path)
    with pytest.raises(InputError, match="ReLU functions 8 times when its activations were swapped, and now only 6"):
        other(torch.from_numpy(IMAGES))


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ([["hidden.0.weight", 4]], r"no place for an activation at 'hidden\.0\.weight'"),
        ([["forward", 4]], "no place for an activation at 'forward'"),
        ([["hidden..relu", 4]], "no place for an activation"),
        ([["hidden.", 4]], "no place for an activation"),
        ([["relu", 10**9]], "levels must be"),
        ([["relu", 0]], "levels must be"),
        ([["relu"]], "do not fit"),
        ([[3, 4]], "do not fit"),
        ([["", 0]] * 10_001, "do not fit"),
        ("relu", "do not fit"),
    ],
)
def test_a_header_that_is_not_ours_changes_nothing(net, tmp_path, held, message):
    state = net.state_dict() | {"act.threshold": torch.tensor(1.0)}
    note = {"functional_relus": held}
    save_file(state, tmp_path / "w.safetensors", metadata={"training": json.dumps(note)})
    with pytest.raises(InputError, match=message):
        zoo.load_weights(net, tmp_path / "w.safetensors")
    assert type(net) is Net
    assert list(net.state_dict()) == list(Net().state_dict())
    net(torch.from_numpy(IMAGES))


class Odd(nn.Module):
    """Something about one ReLU is out of the ordinary."""

    def __init__(self, how):
        super().__init__()
        self.fc, self.readout, self.how = nn.Linear(36, 8), nn.Linear(8, 2), how
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x):
        z = self.fc(x.flatten(1))
        if self.how == "re-read":
            return self.readout(functional.relu_(z) + z)
        if self.how == "re-read, plain":
            return self.readout(torch.relu(z) + z)
        if x.mean() > {"depends on the values": 0.6, "on later values": 2}.get(self.how, float("inf")):
            z = torch.relu(z)
        if self.how == "in training" and self.training:
            z = torch.relu(z)
        if self.how == "constant":
            z = z * torch.relu(self.scale)
        if self.how == "never positive":
            z = z - 100
        return self.readout(torch.relu(z))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("re-read", r"'relu': a ReLU that works in place .*\n  relu: .*functional\.relu_\(z\) \+ z"),
        ("depends on the values", "2 times on another, or from other modules"),
        ("on later values", "must not depend on the values of its input"),
        ("never positive", "the output of relu was never positive"),
    ],
)
def test_what_cannot_be_swapped_is_named_and_nothing_is_changed(how, message):
    torch.manual_seed(0)
    net = Odd(how)
    images = np.concatenate([IMAGES / 2] * 5 + [5 + IMAGES])
    with pytest.raises(InputError, match=message):
        swap_activations(net, images)
    assert type(net) is Odd
    assert not any(isinstance(module, QCFS) for module in net.modules())


def test_a_relu_of_what_is_re_read_is_swapped_where_it_writes_nothing():
    assert list(swap_activations(Odd("re-read, plain"), IMAGES)) == ["relu"]


def test_what_only_training_calls_is_named_when_it_does():
    net, images = Odd("in training"), torch.from_numpy(IMAGES)
    swap_activations(net, IMAGES)
    net.eval()(images)
    with pytest.raises(InputError, match=r"1 times when its activations were swapped, and now more(.|\n)*torch\.relu"):
        net.train()(images)
    torch.relu(torch.ones(2))  # no longer handed to anything


def test_a_relu_of_a_parameter_stays_a_relu():
    torch.manual_seed(0)
    net, images = Odd("constant"), torch.from_numpy(IMAGES)
    before = net(images)
    assert list(swap_activations(net, IMAGES, 1024, percentile=100)) == ["relu"]
    torch.testing.assert_close(net(images), before, atol=0.01, rtol=0)
    with torch.no_grad():
        net.scale[:] = -1.0
    assert of_type(net.relu, QCFS).threshold.item() > 0
    np.testing.assert_allclose(net(images).detach(), net.readout.bias.detach().expand(60, 2), atol=1e-6)


class Clipped(nn.Module):
    """clip(z, 0, bound), by a ReLU: recognised as a whole, with its own bound for a threshold."""

    def __init__(self):
        super().__init__()
        self.bound = nn.Parameter(torch.tensor(1.5))

    def forward(self, z):
        return torch.minimum(torch.relu(z), self.bound)


def test_a_relu_within_an_activation_that_is_recognised_stays():
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(36, 8), Clipped(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)]
    net = nn.Sequential(*layers).eval()
    assert list(swap_activations(net, IMAGES)) == ["4"]
    assert sorted(float(spec.threshold.max()) for spec in capture(net, IMAGES[:1]).neurons.values())[-1] == 1.5
    mixed = nn.Sequential(*layers[:4], Odd("mixed"))
    mixed[4].fc = nn.Identity()
    with pytest.raises(InputError, match=r"'2' is an activation (.|\n)*torch\.minimum"):
        swap_activations(mixed, IMAGES)


def test_a_network_whose_forward_cannot_be_watched_is_refused(net):
    with pytest.raises(InputError, match=r"a graph of torch\.fx, .* the module that it was made of"):
        swap_activations(fx.symbolic_trace(net), IMAGES)
    net.forward = net.forward
    with pytest.raises(InputError, match="a forward that its class has not"):
        swap_activations(net, IMAGES)


def test_a_network_is_not_swapped_twice(net):
    swap_activations(net, IMAGES)
    with pytest.raises(InputError, match="no ReLU to swap"):
        swap_activations(net, IMAGES)
