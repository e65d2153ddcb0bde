"""From ReLU to QCFS, and on from there."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from cos_export.capturing import capture
from cos_export.datasets import Dataset
from cos_export.errors import InputError
from cos_export.qcfs import QCFS
from cos_export.simulation import ann_logits
from cos_export.training import Recipe, accuracy, save_checkpoint, swap_activations, train


class Net(nn.Module):
    """One ReLU in a sequence, and one that is used in two places."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1)
        )
        self.act = nn.ReLU()
        self.hidden = nn.Linear(144, 8)
        self.readout = nn.Linear(8, 2)

    def forward(self, x):
        x = self.act(self.features(x))
        return self.readout(self.act(self.hidden(x.flatten(1))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


IMAGES = np.random.default_rng(0).random((300, 1, 6, 6), np.float32)


def test_thresholds_are_the_largest_outputs(net):
    with torch.no_grad():
        first = net.features[:2](torch.from_numpy(IMAGES))
        second = torch.relu(net.features[2](first))
        third = torch.relu(net.hidden(second.flatten(1)))
    net.train()
    thresholds = swap_activations(net, IMAGES, 8, percentile=100)
    assert thresholds == {
        "features.1": pytest.approx(first.max().item()),
        "act": pytest.approx(max(second.max().item(), third.max().item())),
    }
    assert [m.levels for m in net.modules() if isinstance(m, QCFS)] == [8, 8]
    assert net.act.threshold.item() == pytest.approx(thresholds["act"])
    assert net.training
    assert net.act.training
    assert not any(module._forward_hooks for module in net.modules())


def test_a_percentile_is_below_the_maximum(net):
    ranked = np.sort(torch.relu(net.features[0](torch.from_numpy(IMAGES[:256]))).detach().numpy().ravel())
    ranked = ranked[ranked > 0]
    actual = swap_activations(net, IMAGES[:256], percentile=90)["features.1"]
    assert actual == pytest.approx(ranked[round(0.9 * len(ranked)) - 1])
    assert actual < ranked[-1]


def test_many_levels_change_little_and_the_result_can_be_captured(net):
    net.eval()
    with torch.no_grad():
        before = net(torch.from_numpy(IMAGES)).numpy()
    swap_activations(net, torch.from_numpy(IMAGES), 256, percentile=100)
    with torch.no_grad():
        after = net(torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_allclose(after, before, atol=0.02)
    np.testing.assert_allclose(ann_logits(capture(net, IMAGES[:1]), IMAGES, device="cpu"), after, atol=0.02)


def test_a_module_under_two_names_is_swapped_under_both(net):
    net.features[1] = net.act
    thresholds = swap_activations(net, IMAGES, 4)
    assert len(thresholds) == 1
    assert net.features[1] is net.act
    assert isinstance(net.act, QCFS)


def test_fine_tuning_from_relu_keeps_how_it_started(net, tmp_path):
    labels = np.random.default_rng(1).integers(0, 2, 300)
    images = IMAGES.copy()
    images[labels == 1, :, :, :3] += 0.5
    data = Dataset(images, labels, "halves", "none")
    train(net, data, Recipe(epochs=4, learning_rate=0.05, batch_size=30), device="cpu")
    before = accuracy(net, data, device="cpu")
    thresholds = swap_activations(net, images, 4)
    recipe = Recipe(epochs=2, learning_rate=0.01, batch_size=30, schedule="cosine")
    result = train(net, data, recipe, device="cpu")
    assert result.train_accuracy > max(0.9, before - 0.05)
    start = {"weights": "relu.safetensors", "levels": 4, "percentile": 99.0, "thresholds": thresholds}
    path = save_checkpoint(net, tmp_path / "n.safetensors", result, name="halves", start=start)
    with safe_open(path, "pt") as file:
        held = json.loads(file.metadata()["training"])
    assert held["start"] == start
    assert Recipe(**held["recipe"]) == recipe
    with pytest.raises(InputError, match="written as JSON"):
        save_checkpoint(net, path, result, name="halves", start={"weights": torch.zeros(1)})


def test_an_activation_under_two_names_can_be_saved(net, tmp_path):
    net.features[1] = net.act
    swap_activations(net, IMAGES)
    result = train(net, Dataset(IMAGES, np.arange(300) % 2, "x", "none"), Recipe(1, 0.01, 100), device="cpu")
    save_checkpoint(net, tmp_path / "n.safetensors", result, name="x")
    assert (tmp_path / "n.safetensors").exists()


class Constant(nn.Module):
    def forward(self, x):
        return x * torch.relu(torch.ones(1))


def test_what_cannot_be_swapped(net):
    with pytest.raises(InputError, match="Constant has no ReLU to swap"):
        swap_activations(Constant(), IMAGES)
    with pytest.raises(InputError, match="single ReLU"):
        swap_activations(nn.ReLU(), IMAGES)
    for percentile in (0.0, 100.5, float("nan")):
        with pytest.raises(InputError, match="percentile"):
            swap_activations(net, IMAGES, percentile=percentile)
    with pytest.raises(InputError, match="levels must be at least 1"):
        swap_activations(net, IMAGES, 0)
    with pytest.raises(InputError, match="There are no images"):
        swap_activations(net, IMAGES[:0])
    nn.init.constant_(net.features[0].bias, -100.0)
    with pytest.raises(InputError, match=r"features\.1 was never positive"):
        swap_activations(net, IMAGES)
    assert isinstance(net.act, nn.ReLU)


class Rereading(nn.Module):
    """A ReLU that writes over its input, which forward may read again under the name `before`."""

    def __init__(self, how, inplace=True):
        super().__init__()
        self.conv, self.act = nn.Conv2d(1, 3, 3), nn.ReLU(inplace=inplace)
        self.other = nn.ReLU(inplace=True)
        self.fc = nn.Linear(48, 2)
        self.how = how

    def forward(self, x):
        before = self.conv(x)
        if self.how == "result alone":
            before = self.act(before)
            after = 0.5 * before
        elif self.how == "re-read":
            after = self.act(before)
        elif self.how == "through a view":
            view = before.flatten(2)
            self.act(view)
            after = 0.5 * before
        else:
            self.act(before)
            after = 0.5 * before
        return self.fc(self.other(1 + after - before).flatten(1))


@pytest.mark.parametrize("how", ["re-read", "through a view", "dropped"])
def test_a_relu_whose_writing_matters_is_not_swapped(how):
    torch.manual_seed(0)
    net = Rereading(how).train()
    # `other` works in place as well, on what nothing reads again.
    with pytest.raises(InputError, match=r"'act': a ReLU that works in place .* writes over an input"):
        swap_activations(net, IMAGES, 256, percentile=100)
    assert net.act.inplace
    assert net.other.inplace
    assert net.training
    assert net.act.training


@pytest.mark.parametrize(("how", "inplace"), [("result alone", True), ("re-read", False), ("dropped", False)])
def test_a_relu_whose_writing_does_not_matter_is_swapped(how, inplace):
    torch.manual_seed(0)
    net = Rereading(how, inplace).eval()
    if how == "dropped":
        net.act(net.conv(torch.from_numpy(IMAGES)))
    with torch.no_grad():
        before = net(torch.from_numpy(IMAGES)).numpy()
    swap_activations(net, IMAGES, 1024, percentile=100)
    with torch.no_grad():
        np.testing.assert_allclose(net(torch.from_numpy(IMAGES)).numpy(), before, atol=0.01)


class Scaling(nn.Module):
    """Writes into the images that it is given, as forward may."""

    def __init__(self):
        super().__init__()
        self.fc, self.act, self.readout = nn.Linear(36, 8), nn.ReLU(inplace=True), nn.Linear(8, 2)

    def forward(self, x):
        x /= 16
        return self.readout(self.act(self.fc(x.flatten(1))))


@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_the_images_stay_as_they_are(kind):
    torch.manual_seed(0)
    images, kept = IMAGES.copy(), IMAGES.copy()
    labels = (images.mean((1, 2, 3)) > 0.5).astype(np.int64)
    net, data = Scaling(), Dataset(images, labels, "random", "none")
    swap_activations(net, images if kind == "array" else torch.from_numpy(images), 4)
    np.testing.assert_array_equal(images, kept)
    right = (net(torch.from_numpy(images.copy())).argmax(1).numpy() == labels).mean()
    assert accuracy(net, data, device="cpu") == right == accuracy(net, data, device="cpu")
    np.testing.assert_array_equal(images, kept)
    train(net, data, Recipe(epochs=1, learning_rate=0.01, batch_size=100), test=data, device="cpu")
    np.testing.assert_array_equal(images, kept)


def test_accuracy_leaves_each_submodule_in_its_mode(net):
    net.train()
    net.act.eval()
    accuracy(net, Dataset(IMAGES, np.zeros(300, np.int64), "random", "none"), device="cpu")
    assert net.training
    assert not net.act.training
