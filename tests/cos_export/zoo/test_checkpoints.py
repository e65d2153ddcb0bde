"""Checkpoints as trainings write them: found whatever they are called, refused with all that does not fit."""

import argparse
import json
import sys
from collections import OrderedDict

import pytest
import torch
from command_line import run
from narrowing import statistics
from safetensors.torch import save_file
from torch import nn

from cos_export import zoo
from cos_export.errors import InputError, Notice
from cos_export.qcfs import QCFS
from cos_export.training import swap_activations
from cos_export.zoo.checkpoints import load_weights
from cos_export.zoo.model_source import load_model


def network(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()
    mean, _ = statistics(model[1])
    mean.uniform_(-1, 1)
    return model


def same(one, two):
    x = torch.randn(5, 1, 4, 4)
    return torch.equal(one(x), two(x))


def optimizer():
    model = network(1)
    adam = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 1, 4, 4)).sum().backward()
    adam.step()
    return adam.state_dict()


CONTAINERS = {
    "plain": lambda state: state,
    "net": lambda state: {"net": state, "acc": 93.1, "epoch": 7},
    "model": lambda state: {"model": state, "optimizer": optimizer(), "lr_scheduler": {"last_epoch": 3}},
    "state_dict": lambda state: {"state_dict": state, "arch": "small", "best_prec1": torch.tensor(93.1)},
    "an unusual name": lambda state: {"backbone_weights": state, "step": 3},
    "nested": lambda state: {"checkpoint": {"model": state}, "meta": {"seed": 1}},
    "prefixed": lambda state: {"net": {f"module.{key}": value for key, value in state.items()}},
}


@pytest.mark.parametrize("wrap", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("name", ["w.th", "w.pth.tar", "w.ckpt", "pytorch_model.bin", "w.pt", "checkpoint", "w.t7"])
@pytest.mark.filterwarnings("ignore::cos_export.errors.Notice")
def test_the_state_dict_is_found(tmp_path, wrap, name):
    torch.save(wrap(network(1).state_dict()), tmp_path / name)
    model = network(0)
    load_weights(model, tmp_path / name)
    assert same(model, network(1))


def test_the_old_format_of_torch(tmp_path):
    torch.save({"net": network(1).state_dict()}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    model = network(0)
    load_weights(model, tmp_path / "w.pth")
    assert same(model, network(1))


def test_safetensors_by_another_name(tmp_path):
    save_file(network(1).state_dict(), tmp_path / "w.bin")
    model = network(0)
    load_weights(model, tmp_path / "w.bin")
    assert same(model, network(1))


def test_which_of_several_was_taken_is_said(tmp_path):
    torch.save({"state_dict_ema": network(2).state_dict(), "model": network(1).state_dict()}, tmp_path / "w.pth")
    model = network(0)
    with pytest.warns(Notice, match="the weights under 'model' were taken, and not those under 'state_dict_ema'"):
        load_weights(model, tmp_path / "w.pth")
    assert same(model, network(1))


def test_several_under_unusual_names_are_refused(tmp_path):
    torch.save({"teacher": network(2).state_dict(), "student": network(1).state_dict()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="holds 2 state dicts, under 'teacher', 'student'"):
        load_weights(network(0), tmp_path / "w.pth")


def test_what_torch_would_have_to_run_is_named(tmp_path):
    torch.save({"net": network(1).state_dict(), "args": argparse.Namespace(lr=0.1)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"it holds argparse\.Namespace, which could be read only by running code"):
        load_weights(network(0), tmp_path / "w.pth")


class Renaming(nn.Module):
    """A network that takes the keys of its older version, as torch lets modules do."""

    def __init__(self):
        super().__init__()
        self.new = nn.Linear(3, 2)
        self.register_load_state_dict_pre_hook(self._rename)

    @staticmethod
    def _rename(module, state, prefix, *_):
        for key in list(state):
            state[key.replace("old.", "new.")] = state.pop(key)


def test_what_strict_loading_takes_is_taken(tmp_path):
    state = OrderedDict((key, value) for key, value in network(1).state_dict().items() if "num_batches" not in key)
    model = network(0)
    model.load_state_dict(state, strict=True)
    save_file(state, tmp_path / "w.safetensors")
    model = network(0)
    load_weights(model, tmp_path / "w.safetensors")
    assert same(model, network(1))
    # Metadata of a later version: torch itself is stricter then, and a counter still changes no result.
    model = network(1)
    kept = model.state_dict()
    del kept["1.num_batches_tracked"]
    torch.save(kept, tmp_path / "w.pth")
    model = network(0)
    load_weights(model, tmp_path / "w.pth")
    assert same(model, network(1))
    # The prefix of data-parallel training besides.
    save_file({f"module.{key}": value for key, value in state.items()}, tmp_path / "p.safetensors")
    model = network(0)
    with pytest.warns(Notice, match=r"'module\.'"):
        load_weights(model, tmp_path / "p.safetensors")
    assert same(model, network(1))


def test_hooks_of_the_model_and_shapes_of_old_scalars(tmp_path):
    model, weight = Renaming(), torch.ones(2, 3)
    torch.save({"old.weight": weight, "old.bias": torch.zeros(2)}, tmp_path / "w.pth")
    load_weights(model, tmp_path / "w.pth")
    assert torch.equal(model.new.weight, weight)
    module = nn.Module()
    module.register_parameter("scale", nn.Parameter(torch.tensor(1.0)))
    torch.save({"scale": torch.tensor([2.5])}, tmp_path / "s.pth")
    load_weights(module, tmp_path / "s.pth")
    assert module.get_parameter("scale").item() == 2.5


def test_a_hook_that_fails_leaves_the_model_as_it_was(tmp_path):
    class Broken(nn.Linear):
        def _load_from_state_dict(self, *given):
            if (given[0]["weight"] == 5).all():
                raise KeyError("no version")
            super()._load_from_state_dict(*given)

    model = Broken(3, 2)
    before = model.weight.clone()
    torch.save({"weight": torch.full((2, 3), 5.0), "bias": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"(?s)load_state_dict fails: KeyError.*no version.*test_checkpoints"):
        load_weights(model, tmp_path / "w.pth")
    assert torch.equal(model.weight, before)


def test_every_key_that_differs_is_named_with_its_nearest(tmp_path):
    state = network(1).state_dict()
    renamed = {key.replace("4.", "classifier.").replace("0.", "features.conv."): value for key, value in state.items()}
    torch.save(renamed, tmp_path / "w.pth")
    model = network(0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError) as raised:
        load_weights(model, tmp_path / "w.pth")
    lines = str(raised.value).splitlines()
    assert "  missing: 0.weight (4, 1, 3, 3); nearest in the file: features.conv.weight" in lines
    assert "  missing: 4.bias (3,); nearest in the file: classifier.bias" in lines
    assert "  unexpected: classifier.weight (3, 16); nearest in the network: 4.weight" in lines
    assert len([line for line in lines if "missing" in line or "unexpected" in line]) == 8
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_thresholds_of_what_is_a_relu_here(tmp_path):
    trained = network(1)
    swap_activations(trained, torch.randn(8, 1, 4, 4), 4)
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"The file has thresholds of 2, where the network has ReLUs.*QCFS\(levels\)"):
        load_weights(network(0), tmp_path / "w.pth")


SWAPPED = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()
"""


@pytest.fixture
def swapped(tmp_path, monkeypatch):
    """The weights that `train --swap-activations` writes for a user's network, and what they compute."""
    (tmp_path / "swapped_nets.py").write_text(SWAPPED)
    trained = network(1)
    thresholds = swap_activations(trained, torch.randn(8, 1, 4, 4), 6)
    start = {"swapped": thresholds, "levels": 6}
    header = {"training": json.dumps({"start": start})}
    save_file(trained.state_dict(), tmp_path / "w.safetensors", metadata=header)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield trained
    sys.modules.pop("swapped_nets", None)


def test_swapped_activations_are_restored_by_all_that_load(swapped, tmp_path):
    model = network(0)
    load_weights(model, tmp_path / "w.safetensors")
    assert isinstance(model[2], QCFS) and model[2].levels == 6 and same(model, swapped)
    assert same(load_model("swapped_nets:net", tmp_path / "w.safetensors").module, swapped)
    # A file that does not fit leaves the ReLU in its place, too.
    other = nn.Sequential(nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3))
    with pytest.raises(InputError, match="wrong shape"):
        load_weights(other, tmp_path / "w.safetensors")
    assert isinstance(other[2], nn.ReLU)


def test_check_takes_the_weights_that_conversion_takes(swapped, tmp_path):
    done = run("check", "swapped_nets:net", "--weights", "w.safetensors", "--input-shape", "1,4,4", "--json")
    assert done.returncode == 0, done.stderr
    row = next(row for row in json.loads(done.stdout)["findings"] if row["module"] == "2")
    assert row["op"] == "qcfs" and f"threshold {float(swapped[2].threshold.detach()):.4g}" in row["becomes"]


@pytest.mark.parametrize(("activation", "threshold"), [("act", "thresh"), ("relu", "up"), ("relu", "thresh")])
def test_published_residual_networks(tmp_path, activation, threshold):
    """QCFS's repository has `act.thresh` behind the sum, those of COS and SRP have `relu.up`."""
    trained = zoo.build("resnet20", seed=1)
    for i, module in enumerate(m for m in trained.modules() if isinstance(m, QCFS)):
        module.threshold.data.fill_(1 + i / 8)
    state = {}
    for key, value in trained.state_dict().items():
        if key.endswith("threshold"):
            key = key.removesuffix("threshold") + threshold
            key, value = key.replace(".relu.", f".{activation}."), value.reshape(1)
        state[key] = value
    torch.save(state, tmp_path / "w.pth")
    model = zoo.build("resnet20")
    load_weights(model, tmp_path / "w.pth")
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(x), trained(x), rtol=0, atol=0)
