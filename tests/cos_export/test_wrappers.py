"""Wrappers and masks are taken off where that is exact; what is not a module is named."""

from typing import Any

import numpy as np
import pytest
import torch
from narrowing import present
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import prune, weight_norm

from calibration.thresholds import relu_thresholds
from cos_export.capturing import capture, check_model
from cos_export.datasets import Dataset
from cos_export.errors import CaptureError, InputError
from cos_export.module_logits import module_logits
from cos_export.simulation import ann_logits
from cos_export.training import Recipe, accuracy, save_checkpoint, swap_activations, train


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU6(), nn.Linear(8, 3)).eval()


def data_parallel():
    return nn.DataParallel(network())


def compiled():
    return torch.compile(network())


def compiled_in_place():
    model = network()
    model.compile()
    return model


def data_parallel_part():
    model = network()
    model[2] = nn.DataParallel(model[2])
    return model


def twice():
    return nn.DataParallel(torch.compile(network()))


def pruned():
    model = network()
    prune.l1_unstructured(model[0], "weight", 0.3)
    prune.random_unstructured(model[0], "weight", 0.3)
    prune.ln_structured(model[2], "weight", 0.5, n=2, dim=0)
    return model


def normalised():
    model = network()
    model[2] = weight_norm(model[2])
    return model


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "make", [data_parallel, compiled, compiled_in_place, data_parallel_part, twice, pruned, normalised]
)
def test_a_wrapped_network_is_that_network(make):
    model, x = make(), torch.randn(20, 6)
    keys = set(model.state_dict())
    actual = relu_thresholds(model, x, "maximum", device="cpu")
    assert list(actual) == ["1"]
    captured = capture(model, x, thresholds={"1": actual["1"] * 1.01})
    # The eager network with the weights as forward sees them, in plain PyTorch.
    plain, parts = network(), list(model.modules())
    linear: list[Any] = [part for part in parts if isinstance(part, nn.Linear)]
    with torch.no_grad():
        for target, source in zip((plain[0], plain[2], plain[4]), linear, strict=True):
            weight = source.weight
            if hasattr(source, "weight_mask"):
                weight = source.weight_orig * source.weight_mask
            if hasattr(source, "weight_g"):
                weight = source.weight_g * source.weight_v / source.weight_v.norm(dim=1, keepdim=True)
            target.weight.copy_(weight)
        expected = plain(x).numpy()
    np.testing.assert_allclose(ann_logits(captured, x, device="cpu"), expected, atol=1e-6)
    assert set(model.state_dict()) == keys, "the user's module was changed"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: network().state_dict(), r"is a state dict \(OrderedDict\).*load_state_dict"),
        (lambda: {"state_dict": {}, "epoch": 3}, "is a dict with 'state_dict', 'epoch'"),
        (lambda: nn.Linear, r"is the class Linear\. Give a network of it"),
        (lambda: "weights.pth", "is a str. Build the network"),
        (lambda: capture(nn.Sequential(nn.Linear(6, 3), nn.ReLU6()), torch.rand(1, 6)), "converted already"),
        (lambda: torch.export.export(network(), (torch.rand(1, 6),)), r"program\.module\(\)"),
    ],
)
def test_what_is_not_a_module_is_named(make, message):
    given = make()
    for entry in (capture, check_model, relu_thresholds):
        with pytest.raises(InputError, match=message):
            entry(given, torch.rand(1, 6))


class Ends(nn.Module):
    def forward(self, x):
        raise SystemExit(0)


class Leaves(nn.Module):
    def forward(self, x):
        import os

        os._exit(0)


@pytest.mark.parametrize("kind", [Ends, Leaves])
def test_a_forward_that_ends_python(kind):
    (finding,) = check_model(kind(), torch.rand(1, 6)).findings
    assert "it ends Python (exit code 0)" in present(finding.blocker)
    assert "test_wrappers.py" in present(finding.line)
    with pytest.raises(CaptureError, match="it ends Python"):
        capture(kind(), torch.rand(1, 6))
    with pytest.raises(InputError, match=rf"{kind.__name__} fails on images of shape \(6,\): it ends Python"):
        module_logits(kind(), torch.rand(1, 6), device=torch.device("cpu"))


def dataset(labels):
    images = np.random.default_rng(0).random((len(labels), 1, 2, 3), np.float32)
    return Dataset(images, np.array(labels, np.int64), "made up", "none")


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_a_wrapped_network_is_trained_and_kept_as_it_is_without(wrap, tmp_path):
    data = dataset([0, 1, 2, 1] * 4)
    recipe = Recipe(epochs=1, learning_rate=0.1, batch_size=8)
    plain, model = nn.Sequential(nn.Flatten(), network()), nn.Sequential(nn.Flatten(), network())
    train(plain, data, recipe, device="cpu")
    wrapped = wrap(model)
    result = train(wrapped, data, recipe, device="cpu")
    save_checkpoint(wrapped, tmp_path / "w.safetensors", result, name="net")
    kept = load_file(tmp_path / "w.safetensors")
    assert kept.keys() == plain.state_dict().keys()
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(kept[key], value)
    assert list(swap_activations(wrap(model), torch.from_numpy(data.images))) == ["1.1"]
    expected = (plain(torch.from_numpy(data.images)).argmax(1).numpy() == data.labels).mean()
    assert accuracy(wrap(plain), data, device="cpu") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: network().state_dict(), "is a state dict"),
        (lambda: nn.Sequential(nn.Flatten(), network(), nn.Linear(3, 2)), r"knows 2 classes, and .* labels up to 2"),
        (lambda: nn.Sequential(nn.Flatten(), network(), nn.Linear(3, 1), nn.Flatten(0)), r"returned shape \(8,\)"),
    ],
)
def test_what_cannot_be_trained(model, message):
    with pytest.raises(InputError, match=message):
        train(model(), dataset([0, 1, 2, 1] * 4), Recipe(epochs=1, learning_rate=0.1, batch_size=8), device="cpu")
