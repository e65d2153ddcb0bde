"""A training that is killed between or within epochs goes on to the same weights, bit for bit."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from cos_export import training
from cos_export.datasets import Dataset
from cos_export.errors import InputError
from cos_export.qcfs import QCFS
from cos_export.training import Recipe, save_checkpoint, state_path, train

RECIPE = Recipe(epochs=4, learning_rate=0.05, batch_size=16, shift=1, flip=True, label_smoothing=0.05)


def noise():
    generator = np.random.default_rng(0)
    return Dataset(generator.random((70, 1, 6, 6), np.float32), generator.integers(0, 3, 70), "noise", "none")


@pytest.fixture(scope="module")
def data():
    return noise()


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), QCFS(4, 2.0), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 3)
    )


def kill_at(stage, done):
    """A progress callback that interrupts as Ctrl-C does."""

    def progress(name, number, total, /):
        if name.startswith(stage) and number == done:
            raise KeyboardInterrupt

    return progress


@pytest.fixture(scope="module")
def whole(data):
    net = model()
    return net, train(net, data, RECIPE, test=data, device="cpu")


@pytest.mark.parametrize("place", [("training", 1), ("training", 3), ("training", 4), ("epoch 3", 2)], ids=str)
@pytest.mark.parametrize("schedule", ["one-cycle", "cosine"])
def test_it_goes_on_as_if_nothing_had_happened(data, tmp_path, place, schedule):
    recipe = replace(RECIPE, schedule=schedule)
    expected, path = model(), state_path(tmp_path / "net.safetensors")
    result = train(expected, data, recipe, test=data, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train(model(), data, recipe, device="cpu", resume=path, progress=kill_at(*place))
    # Another model and another global generator: all that matters is in the file.
    net = model()
    nn.init.normal_(net[5].weight)
    torch.manual_seed(77)
    continued = train(net, data, recipe, test=data, device="cpu", resume=path)
    assert continued.history == result.history
    assert (continued.train_accuracy, continued.test_accuracy) == (result.train_accuracy, result.test_accuracy)
    mine, theirs = net.state_dict(), expected.state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


def test_a_kill_in_the_first_epoch_leaves_nothing_to_go_on_from(data, tmp_path):
    path = tmp_path / "net.resume.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(model(), data, RECIPE, device="cpu", resume=path, progress=kill_at("epoch 1", 1))
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from cos_export.training import train
sys.path.insert(0, sys.argv[2])
from test_resume import RECIPE, model, noise

def progress(stage, done, total):
    if (stage, done) == ("training", 2):
        os.kill(os.getpid(), signal.SIGKILL)

train(model(), noise(), RECIPE, device="cpu", resume=sys.argv[1], progress=progress)
"""


def test_a_process_that_is_killed(data, whole, tmp_path):
    path = tmp_path / "net.resume.safetensors"
    command = [sys.executable, "-c", KILLED, str(path), str(Path(__file__).parent)]
    assert subprocess.run(command, timeout=120, check=False).returncode == -signal.SIGKILL
    net = model()
    result = train(net, data, RECIPE, test=data, device="cpu", resume=path)
    assert len(result.history) == 4
    assert torch.equal(net[5].weight, whole[0][5].weight)


def test_two_interruptions_and_the_time_of_all_parts(data, whole, tmp_path):
    path = tmp_path / "net.resume.safetensors"
    for epoch in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            train(model(), data, RECIPE, device="cpu", resume=path, progress=kill_at("training", epoch))
    with safe_open(path, "pt") as file:
        before = json.loads(file.metadata()["state"])["seconds"]
    net = model()
    result = train(net, data, RECIPE, device="cpu", resume=path)
    assert torch.equal(net[5].weight, whole[0][5].weight)
    assert result.seconds > before > 0


def test_a_finished_state_gives_the_weights_again_and_the_checkpoint_ends_it(data, whole, tmp_path):
    out = tmp_path / "net.safetensors"
    path = state_path(out)
    assert path.name == "net.resume.safetensors"
    train(model(), data, RECIPE, device="cpu", resume=path)
    told, net = [], model()
    result = train(net, data, RECIPE, device="cpu", resume=path, progress=lambda *call: told.append(call))
    assert [call for call in told if call[0] != "running the module"] == [("training", 4, 4)]
    assert torch.equal(net[5].weight, whole[0][5].weight)
    save_checkpoint(net, out, result, name="noise")
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.safetensors"]


def test_without_a_path_nothing_is_written(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(model(), data, replace(RECIPE, epochs=1), device="cpu")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def state(data, tmp_path):
    path = tmp_path / "net.resume.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(model(), data, RECIPE, device="cpu", resume=path, progress=kill_at("training", 2))
    return path


def test_a_state_that_is_cut_short(data, state):
    content = state.read_bytes()
    for kept in (0, 5, 100, len(content) // 2, len(content) - 1):
        state.write_bytes(content[:kept])
        with pytest.raises(InputError, match="cannot be read as the state of a training"):
            train(model(), data, RECIPE, device="cpu", resume=state)


def test_a_file_that_is_something_else(data, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="not the state of a training"):
        train(model(), data, RECIPE, device="cpu", resume=path)
    save_file({"a": torch.zeros(2)}, path, metadata={"state": "{not json"})
    with pytest.raises(InputError, match="cannot be read"):
        train(model(), data, RECIPE, device="cpu", resume=path)


def test_the_state_of_another_training(data, state):
    with pytest.raises(InputError, match=r"another recipe(?s:.*)epochs: 4 there, 5 here"):
        train(model(), data, replace(RECIPE, epochs=5), device="cpu", resume=state)
    other = replace(data, images=data.images + 1)
    with pytest.raises(InputError, match=r"another data(?s:.*)digest"):
        train(model(), other, RECIPE, device="cpu", resume=state)
    wider = model()
    wider[5] = nn.Linear(144, 4)
    with pytest.raises(InputError, match=r"another network(?s:.*)5.weight: \(3, 144\) there, \(4, 144\) here"):
        train(wider, data, RECIPE, device="cpu", resume=state)


def test_a_state_of_other_levels_or_another_start_is_not_gone_on_from(data, tmp_path):
    """Neither changes the shape of any tensor: the weights of the one would silently go on in the other."""
    path, start = state_path(tmp_path / "net.safetensors"), {"weights": "a" * 64}
    with pytest.raises(KeyboardInterrupt):
        train(model(), data, RECIPE, device="cpu", resume=path, start=start, progress=kill_at("training", 2))
    kept = path.read_bytes()
    finer = model()
    finer[2] = QCFS(8, 2.0)
    with pytest.raises(InputError, match=r"another number of levels(?s:.*)2: 4 there, 8 here"):
        train(finer, data, RECIPE, device="cpu", resume=path, start=start)
    for other in ({"weights": "b" * 64}, None):
        with pytest.raises(InputError, match=r"another start(?s:.*)weights: a+ there"):
            train(model(), data, RECIPE, device="cpu", resume=path, start=other)
    assert path.read_bytes() == kept
    assert len(train(model(), data, RECIPE, device="cpu", resume=path, start=start).history) == RECIPE.epochs


def test_a_state_of_an_earlier_version_says_nothing_of_levels_and_start(data, state):
    tensors = load_file(state)
    with safe_open(state, "pt") as file:
        about = json.loads(file.metadata()["state"])
    del about["digest"], about["levels"], about["start"]
    save_file(tensors, state, metadata={"state": json.dumps(about)})
    assert len(train(model(), data, RECIPE, device="cpu", resume=state).history) == RECIPE.epochs
    save_file(tensors, state, metadata={"state": json.dumps(about | {"levels": 4})})
    with pytest.raises(InputError, match="not a whole state"):
        train(model(), data, RECIPE, device="cpu", resume=state)


@pytest.mark.parametrize("damage", ["generator/samples", "generator/cpu", "history", "history entries"])
def test_a_state_that_is_not_whole(data, state, damage):
    tensors = load_file(state)
    with safe_open(state, "pt") as file:
        about = json.loads(file.metadata()["state"])
    if damage == "history":
        del about["history"]
    elif damage == "history entries":
        about["history"] = [1, 2]
    else:
        tensors[damage] = tensors[damage][:10]
    save_file(tensors, state, metadata={"state": json.dumps(about)})
    with pytest.raises(InputError, match="is damaged"):
        train(model(), data, RECIPE, device="cpu", resume=state)
    del about["digest"]  # as of a state that was written before there were digests
    save_file(tensors, state, metadata={"state": json.dumps(about)})
    with pytest.raises(InputError, match="not a whole state"):
        train(model(), data, RECIPE, device="cpu", resume=state)


def test_a_folder_that_is_not_there_is_said_before_any_training(data, tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        train(
            model(), data, RECIPE, device="cpu", resume=tmp_path / "nowhere" / "x.safetensors", progress=kill_at("", 0)
        )


def test_a_loss_that_is_no_number_is_not_kept(data, tmp_path):
    path = tmp_path / "net.resume.safetensors"
    with pytest.raises(InputError, match="lower learning rate"):
        train(model(), data, replace(RECIPE, learning_rate=1e30), device="cpu", resume=path)
    assert not path.exists()


def test_mixed_precision_is_float32_on_a_cpu_without_bfloat16(data, whole, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    net = model()
    result = train(net, data, replace(RECIPE, precision="mixed"), device="cpu")
    assert result.autocast is None
    assert torch.equal(net[5].weight, whole[0][5].weight)


@pytest.mark.parametrize("instructions", ["avx512_bf16", "amx_bf16"])
def test_mixed_precision_is_bfloat16_on_a_cpu_that_has_it(data, monkeypatch, instructions):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True})
    assert train(model(), data, replace(RECIPE, precision="mixed"), device="cpu").autocast == "bfloat16"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_way_through_mixed_precision(data, whole, tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(training.loop, "mixed_precision_type", lambda device: dtype)
    path, recipe = tmp_path / "net.resume.safetensors", replace(RECIPE, precision="mixed")
    expected, net = model(), model()
    result = train(expected, data, recipe, device="cpu")
    assert result.autocast == str(dtype).removeprefix("torch.")
    assert abs(result.history[-1].loss - whole[1].history[-1].loss) < 0.2
    with pytest.raises(KeyboardInterrupt):
        train(model(), data, recipe, device="cpu", resume=path, progress=kill_at("training", 2))
    train(net, data, recipe, device="cpu", resume=path)
    assert torch.equal(net[5].weight, expected[5].weight)
    save_checkpoint(net, tmp_path / "net.safetensors", result, name="noise")
    with safe_open(tmp_path / "net.safetensors", "pt") as file:
        held = json.loads(file.metadata()["training"])
    assert held["autocast"] == result.autocast
    assert held["recipe"]["precision"] == "mixed"
