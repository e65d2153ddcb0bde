"""The zoo, and loading weights into it."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from cos_export import zoo
from cos_export.capturing import capture
from cos_export.datasets import load_dataset
from cos_export.errors import InputError
from cos_export.qcfs import QCFS
from cos_export.simulation import ann_logits
from cos_export.training import Recipe, accuracy


@pytest.fixture
def trained():
    model = zoo.build("digits")
    zoo.load_weights(model, zoo.weights_path("digits"))
    return model


def test_names():
    assert "digits" in zoo.names()
    assert zoo.entry("digits").input_shape == (1, 8, 8)


def test_the_digits_network_is_as_described():
    model = zoo.build("digits", levels=6)
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 6
    assert {m.levels for m in model.modules() if isinstance(m, QCFS)} == {6}
    assert 50_000 < sum(p.numel() for p in model.parameters()) < 150_000
    assert not model.training
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_a_build_depends_on_its_seed_alone():
    torch.manual_seed(5)
    first = zoo.build("digits", seed=1).state_dict()
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)
    again, other = zoo.build("digits", seed=1).state_dict(), zoo.build("digits", seed=2).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_the_shipped_weights_reach_their_accuracy(trained):
    assert accuracy(trained, load_dataset("digits", "test"), device="cpu") >= 0.985


@pytest.mark.parametrize(
    ("name", "megabytes", "share"), [("digits", 1, 0.985), ("resnet20", 5, 0.88), ("vgg9", 5, 0.88)]
)
def test_the_shipped_weights_say_how_they_were_trained(name, megabytes, share):
    path = zoo.weights_path(name)
    assert path.stat().st_size < megabytes * 1_000_000
    with safe_open(path, "pt") as file:
        held = json.loads(file.metadata()["training"])
    assert held["model"] == name
    assert Recipe(**held["recipe"]) == zoo.entry(name).recipe
    assert held["test_accuracy"] >= share
    assert all(value.dtype in (torch.float32, torch.int64) for value in load_file(path).values())
    zoo.load_weights(zoo.build(name), path)


@pytest.mark.parametrize(("name", "megabytes", "share"), [("resnet20-relu", 5, 0.85), ("vgg9-relu", 5, 0.85)])
def test_the_weights_of_relu_networks_say_what_they_started_from(name, megabytes, share):
    path = zoo.weights_path(name)
    assert path.stat().st_size < megabytes * 1_000_000
    with safe_open(path, "pt") as file:
        held = json.loads(file.metadata()["training"])
    assert held["model"] == name
    assert held["start"] == {"weights": f"{name}-start.safetensors"}
    assert held["test_accuracy"] >= share
    model = zoo.build(name)
    zoo.load_weights(model, path)
    assert any(isinstance(module, nn.ReLU) for module in model.modules())
    assert not any(isinstance(module, QCFS) for module in model.modules())


def test_a_relu_network_has_no_levels_and_a_maximum_where_vgg_has_one():
    with pytest.raises(InputError, match="'vgg9-relu' has ReLUs, which have no levels"):
        zoo.build("vgg9-relu", levels=4)
    assert sum(isinstance(module, nn.MaxPool2d) for module in zoo.build("vgg9-relu").modules()) == 4
    assert not any(isinstance(module, nn.MaxPool2d) for module in zoo.build("vgg9").modules())


def test_the_captured_network_answers_as_the_trained_one(trained):
    images = load_dataset("digits").images[:200]
    network = capture(trained, images[:1])
    with torch.no_grad():
        expected = trained(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(ann_logits(network, images, device="cpu"), expected, atol=1e-4)
    assert len(network.layers) == 5


@pytest.mark.parametrize("call", [zoo.build, zoo.entry, zoo.weights_path])
def test_there_is_no_such_network(call):
    with pytest.raises(InputError, match="no network 'alexnet' in the zoo"):
        call("alexnet")


def small():
    return nn.Sequential(nn.Linear(3, 2), QCFS(4))


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "pt"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_are_loaded(tmp_path, suffix, wrapped):
    path, source, model = tmp_path / f"w.{suffix}", small(), small()
    if suffix == "safetensors":
        save_file(source.state_dict(), path)
    else:
        torch.save({"state_dict": source.state_dict()} if wrapped else source.state_dict(), path)
    zoo.load_weights(model, path)
    assert torch.equal(model[0].weight, source[0].weight)


def test_every_key_that_does_not_fit_is_named_and_nothing_is_loaded(tmp_path):
    model, path = small(), tmp_path / "w.safetensors"
    before = model[0].bias.clone()
    state = {"0.weight": torch.zeros(2, 4), "0.bias": torch.zeros(2), "2.weight": torch.zeros(1)}
    save_file(state, path)
    with pytest.raises(InputError) as raised:
        zoo.load_weights(model, path)
    message = str(raised.value)
    assert "missing: 1.threshold ()" in message
    assert "unexpected: 2.weight (1,)" in message
    assert "wrong shape: 0.weight is (2, 4) in the file and (2, 3) here" in message
    assert torch.equal(model[0].bias, before)


def test_integers_of_a_quantised_network_are_not_its_weights(tmp_path):
    model, path = small(), tmp_path / "w.safetensors"
    before = model.state_dict()["0.weight"].clone()
    save_file(model.state_dict() | {"0.weight": torch.ones_like(before, dtype=torch.int8)}, path)
    with pytest.raises(InputError, match=r"integers: 0\.weight is int8 in the file and float32 here"):
        zoo.load_weights(model, path)
    assert torch.equal(model.state_dict()["0.weight"], before)


def test_weights_that_are_not_finite(tmp_path):
    model, path = small(), tmp_path / "w.safetensors"
    state = model.state_dict()
    state["0.bias"] = torch.tensor([1.0, float("nan")])
    save_file(state, path)
    with pytest.raises(InputError, match=r"not finite: 0\.bias"):
        zoo.load_weights(model, path)


class Payload:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_nothing_is_unpickled(tmp_path, capsys):
    path = tmp_path / "w.pth"
    torch.save({"0.weight": Payload()}, path)
    with pytest.raises(InputError, match="state dict of tensors and nothing else"):
        zoo.load_weights(small(), path)
    torch.save(small(), path)
    with pytest.raises(InputError, match=r"torch\.save"):
        zoo.load_weights(small(), path)
    assert "never" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.safetensors", b"not safetensors at all", "cannot be read as safetensors"),
        ("w.safetensors", b"", "cannot be read as safetensors"),
        ("w.pth", b"garbage", "cannot be read as plain weights"),
        ("w.pth", b"", "cannot be read as plain weights"),
        ("w.bin", b"", "cannot be read as plain weights"),
    ],
)
def test_files_that_hold_no_weights(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        zoo.load_weights(small(), tmp_path / name)


def test_a_file_that_holds_something_else(tmp_path):
    torch.save([1, 2, 3], tmp_path / "w.pt")
    with pytest.raises(InputError, match="holds no state dict"):
        zoo.load_weights(small(), tmp_path / "w.pt")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no file of weights"):
        zoo.load_weights(small(), tmp_path / "none.pth")
