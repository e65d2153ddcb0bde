"""Networks by the names that users give them."""

import sys

import pytest
import torch
from narrowing import of_type
from safetensors.torch import save_file
from torch import nn

from cos_export import zoo
from cos_export.errors import InputError
from cos_export.qcfs import QCFS
from cos_export.zoo.model_source import build_model, load_model


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A user's module in the current folder."""
    source = "from torch import nn\ndef net():\n    return nn.Linear(3, 2)\ndef odd():\n    return 5\nlist_ = []\n"
    (tmp_path / "users_own.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "users_own"
    sys.modules.pop("users_own", None)


def test_a_zoo_network_comes_with_its_weights():
    model = load_model("digits")
    assert model.weights == zoo.weights_path("digits")
    assert not of_type(model.source, nn.Module).training


def test_levels_and_classes_of_a_zoo_network(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(zoo.build("digits", classes=3).state_dict(), path)
    model = load_model("digits", path, levels=8, classes=3)
    source = of_type(model.source, nn.Module)
    assert of_type(source.head, nn.Linear).out_features == 3
    assert {m.levels for m in source.modules() if isinstance(m, QCFS)} == {8}
    with pytest.raises(InputError, match="The file has 3 classes and the network 10"):
        load_model("digits", path)
    with pytest.raises(InputError, match="trained with L = 4, and levels is 8"):
        load_model("digits", levels=8)


def test_a_factory(module, tmp_path):
    first = load_model(f"{module}:net")
    assert isinstance(first.source, nn.Linear)
    assert first.weights is None
    save_file({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, tmp_path / "w.safetensors")
    loaded = load_model(f"{module}:net", tmp_path / "w.safetensors")
    assert of_type(loaded.source, nn.Linear).weight.sum() == 6
    one, other = (of_type(build_model(f"{module}:net", seed=3), nn.Linear) for _ in range(2))
    assert torch.equal(one.weight, other.weight)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("users_own:absent", "cannot be found"),
        ("users_own:odd", "returned a int"),
        ("users_own:list_", "is a list"),
        ("not_there:net", "cannot be imported"),
        ("alexnet", "There is no network 'alexnet'"),
    ],
)
def test_networks_that_cannot_be_made(module, spec, message):
    with pytest.raises(InputError, match=message):
        load_model(spec)


def test_options_of_a_factory(module):
    with pytest.raises(InputError, match="levels can be chosen for zoo networks only"):
        build_model(f"{module}:net", levels=4)
    with pytest.raises(InputError, match="classes can be chosen"):
        build_model(f"{module}:net", classes=4)


class Payload:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_a_pt2_file_is_refused_unread(tmp_path, capsys):
    path = tmp_path / "net.pt2"
    torch.save(Payload(), path)
    with pytest.raises(InputError, match=r"refused: loading a \.pt2 can run code(?s:.*)package\.module:factory"):
        load_model(str(path))
    assert "never" not in capsys.readouterr().out
