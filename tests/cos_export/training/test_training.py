"""Training: it learns, it repeats itself, and it keeps its recipe."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from narrowing import present
from replayed_operations import Operations
from safetensors import safe_open
from torch import nn

from cos_export import zoo
from cos_export.datasets import Dataset, load_dataset
from cos_export.errors import InputError
from cos_export.qcfs import QCFS
from cos_export.training import (
    Recipe,
    accuracy,
    fine_tuning,
    learning_rate,
    save_checkpoint,
    save_learning_curve,
    train,
)
from cos_export.training.augmentation import augment, draw
from cos_export.training.job import TrainingJob, run_training

RECIPE = Recipe(epochs=8, learning_rate=0.05, batch_size=16, shift=1, label_smoothing=0.05)


@pytest.fixture(scope="module")
def data():
    """Bright left halves against bright right halves."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 96)
    images = generator.random((96, 1, 6, 6), np.float32) * 0.5
    images[labels == 0, :, :, :3] += 0.5
    images[labels == 1, :, :, 3:] += 0.5
    return Dataset(images, labels, "halves", "none")


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), QCFS(4, 2.0), nn.Dropout(0.1), nn.Flatten(), nn.Linear(144, 2)
    )


def test_only_the_end_of_an_epoch_waits_for_a_device(data):
    """A host would wait where it reads a number of a tensor: as often in epochs of many steps as of few."""
    waits = []
    for batch_size in (48, 8):
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), QCFS(4), nn.Flatten(), nn.Linear(32, 2))
        with Operations() as operations:
            train(model, data, replace(RECIPE, epochs=1, batch_size=batch_size, flip=True), device="cpu")
        waits.append(operations.waits())
    assert sorted(waits[0]) == sorted(waits[1]) and "_local_scalar_dense" in waits[0]


def test_it_learns_and_reports(data):
    told = []
    net = model()
    result = train(net, data, RECIPE, test=data, device="cpu", progress=lambda *a: told.append(a))
    assert result.test_accuracy == result.train_accuracy == accuracy(net, data, device="cpu")
    assert result.test_accuracy > 0.95
    assert len(result.history) == 8
    assert result.history[-1].loss < result.history[0].loss
    assert told[0] == ("training", 0, 8)
    assert told[1:3] == [("epoch 1 of 8", 0, 6), ("epoch 1 of 8", 1, 6)]
    last = [call for call in told if call[0].startswith("epoch 8 of 8 (before it: loss ")]
    assert last[-1][1:] == (6, 6)
    assert [call for call in told if call[0] != "running the module"][-1] == ("training", 8, 8)
    assert not net.training
    assert net[2].threshold.item() != 2.0


def test_a_seed_gives_the_same_weights_and_leaves_the_global_generator_alone(data):
    states = []
    for seed in (1, 1, 2):
        net = model()
        before = torch.get_rng_state()
        train(net, data, replace(RECIPE, seed=seed, epochs=2), device="cpu")
        assert torch.equal(torch.get_rng_state(), before)
        states.append(net.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["5.weight"], states[2]["5.weight"])


def test_a_loss_that_is_no_number_stops_it(data):
    with pytest.raises(InputError, match="lower learning rate"):
        train(model(), data, replace(RECIPE, learning_rate=1e30), device="cpu")


def test_a_batch_larger_than_the_data(data):
    with pytest.raises(InputError, match="halves has 96 samples"):
        train(model(), data, replace(RECIPE, batch_size=97), device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"shift": -1},
        {"label_smoothing": 1.0},
        {"momentum": -0.1},
        {"weight_decay": -1.0},
    ],
    ids=str,
)
def test_recipes_that_make_no_sense(change):
    with pytest.raises(InputError, match=next(iter(change))):
        replace(RECIPE, **change)


def test_augmentation_moves_whole_images():
    images = torch.arange(1.0, 1 + 4 * 2 * 5 * 5).reshape(4, 2, 5, 5)
    moved = augment(
        images, draw(1, replace(RECIPE, shift=2, batch_size=len(images)), torch.Generator().manual_seed(3)).at(0)
    )
    assert moved.shape == images.shape
    padded = nn.functional.pad(images, [2] * 4)
    for sample in range(4):
        candidates = [padded[sample, :, i : i + 5, j : j + 5] for i in range(5) for j in range(5)]
        assert any(torch.equal(moved[sample], candidate) for candidate in candidates)


def test_augmentation_mirrors_some_images():
    images = torch.rand(32, 1, 3, 3)
    seen = augment(
        images,
        draw(1, replace(RECIPE, shift=0, flip=True, batch_size=len(images)), torch.Generator().manual_seed(0)).at(0),
    )
    mirrored = [torch.equal(a, b.flip(2)) and not torch.equal(a, b) for a, b in zip(seen, images, strict=True)]
    assert 0 < sum(mirrored) < 32
    assert all(m or torch.equal(a, b) for m, a, b in zip(mirrored, seen, images, strict=True))


def test_a_checkpoint_holds_weights_and_recipe_and_repeats_to_the_byte(data, tmp_path):
    net = model()
    result = train(net, data, replace(RECIPE, epochs=1), test=data, device="cpu")
    path = save_checkpoint(net, tmp_path / "net.safetensors", result, name="halves")
    with safe_open(path, "pt") as file:
        held = json.loads(file.metadata()["training"])
    assert Recipe(**held["recipe"]) == result.recipe
    assert (held["model"], held["test_accuracy"]) == ("halves", result.test_accuracy)
    other = model()
    zoo.load_weights(other, path)
    assert torch.equal(other[5].weight, net[5].weight)
    first = path.read_bytes()
    save_checkpoint(net, path, result, name="halves")
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_a_checkpoint_that_cannot_be_written(data, tmp_path):
    net = model()
    result = train(net, data, replace(RECIPE, epochs=1), device="cpu")
    with pytest.raises(InputError, match="ends otherwise"):
        save_checkpoint(net, tmp_path / "net.pth", result, name="halves")
    with pytest.raises(InputError, match="cannot be written"):
        save_checkpoint(net, tmp_path / "nowhere" / "net.safetensors", result, name="halves")


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 24, 4000])
def test_one_cycle_is_that_of_torch_to_the_bit(steps):
    recipe = replace(RECIPE, learning_rate=0.15)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.15, total_steps=steps + 1, cycle_momentum=False)
    for step in range(steps):
        assert learning_rate(recipe, step, steps) == optimizer.param_groups[0]["lr"]
        optimizer.step()
        cycle.step()


def test_the_cosine_falls_from_the_learning_rate_towards_zero():
    recipe = replace(RECIPE, schedule="cosine", learning_rate=0.2)
    rates = [learning_rate(recipe, step, 10) for step in range(10)]
    assert rates[0] == 0.2
    assert rates[5] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.01


@pytest.mark.parametrize("change", [{"schedule": "linear"}, {"precision": "float16"}, {"learning_rate": float("nan")}])
def test_recipes_of_unknown_words(change):
    with pytest.raises(InputError, match=next(iter(change))):
        replace(RECIPE, **change)


def test_a_recipe_is_written_down_without_late_fields_at_their_defaults():
    assert not {"schedule", "precision"} & set(RECIPE.to_dict())
    late = replace(RECIPE, schedule="cosine", precision="mixed")
    for recipe in (RECIPE, late):
        assert Recipe(**json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_a_swapped_network_is_trained_on_gently_by_its_own_recipe_in_all_else(data, tmp_path):
    recipe = present(zoo.entry("resnet20").recipe)
    gentle = fine_tuning(recipe)
    assert (gentle.epochs, gentle.learning_rate, gentle.schedule) == (3, 0.02, "cosine")
    assert replace(gentle, epochs=recipe.epochs, learning_rate=0.1, schedule="one-cycle") == recipe
    np.savez(tmp_path / "data.npz", images=data.images, labels=data.labels)
    (tmp_path / "halves_of_relus.py").write_text(
        "from torch import nn\n\ndef net():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 2))\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        job = TrainingJob("halves_of_relus:net", tmp_path / "n.safetensors", str(tmp_path / "data.npz"), swapped=True)
        done, _ = run_training(replace(job, changes={"batch_size": 32, "epochs": 2}, device="cpu"))
    finally:
        sys.path.remove(str(tmp_path))
    assert done.recipe == Recipe(2, 0.02, 32, schedule="cosine")


def test_the_learning_curve_is_a_picture(data, tmp_path):
    result = train(model(), data, replace(RECIPE, epochs=2), test=data, device="cpu")
    path = save_learning_curve(tmp_path / "net.png", result)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert save_learning_curve(path, result).read_bytes() == content
    save_learning_curve(path, replace(result, history=result.history[:1], test_accuracy=None))
    with pytest.raises(InputError, match="ends otherwise"):
        save_learning_curve(tmp_path / "net.jpg", result)


def test_the_shipped_digits_say_the_recipe_that_the_package_writes():
    with safe_open(zoo.weights_path("digits"), "pt") as file:
        held = json.loads(file.metadata()["training"])
    assert held["recipe"] == present(zoo.entry("digits").recipe).to_dict()


def test_a_checkpoint_may_be_read_like_any_other_file(tmp_path):
    model, dataset = zoo.build("digits"), load_dataset("digits", "train").first(64)
    result = train(model, dataset, Recipe(epochs=1, learning_rate=0.01, batch_size=32))
    (tmp_path / "plain").write_text("")
    save_checkpoint(model, tmp_path / "net.safetensors", result, name="digits")
    assert (tmp_path / "net.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
