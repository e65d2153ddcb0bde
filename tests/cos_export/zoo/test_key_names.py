"""State dicts under other names: what is left out leaves every number as it is."""

import json

import pytest
import torch
from command_line import run
from narrowing import of_type
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

from cos_export import zoo
from cos_export.errors import InputError, Notice
from cos_export.zoo.checkpoints import load_weights


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


class Lit(nn.Module):
    """As a Lightning module keeps its network."""

    def __init__(self, model, name="model"):
        super().__init__()
        setattr(self, name, model)


def part():
    model = network(1)
    model[0] = nn.DataParallel(model[0])
    return model


def pruned():
    model = network(1)
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


FILES = {
    "data parallel": (lambda: nn.DataParallel(network(1)), r"'module\.'"),
    "compiled": (lambda: torch.compile(network(1)), r"'_orig_mod\.'"),
    "lightning": (lambda: Lit(network(1)), r"'model\.'"),
    "net": (lambda: Lit(network(1), "net"), r"'net\.'"),
    "all of them": (
        lambda: nn.DataParallel(of_type(torch.compile(Lit(Lit(network(1), "net"))), nn.Module)),
        r"'module\._orig_mod\.model\.net\.'",
    ),
    "a part": (part, "'module' within keys"),
    "pruned": (pruned, "masks of 1 pruned"),
    "pruned and data parallel": (lambda: nn.DataParallel(pruned()), r"'module\.'|masks of 1 pruned"),
}


@pytest.mark.parametrize(("make", "note"), FILES.values(), ids=FILES)
@pytest.mark.parametrize("suffix", ["pth", "ckpt", "safetensors"])
def test_prefixes_are_left_out(make, note, suffix, tmp_path):
    saved, path, model = make(), tmp_path / f"w.{suffix}", network(0)
    if suffix == "safetensors":
        save_file(saved.state_dict(), path)
    else:
        torch.save({"state_dict": saved.state_dict()} if suffix == "ckpt" else saved.state_dict(), path)
    with pytest.warns(Notice, match=note):
        load_weights(model, path)
    inner = saved
    while not isinstance(inner, nn.Sequential):
        inner = next(inner.children())
    x = torch.randn(5, 6)
    torch.testing.assert_close(model(x), inner(x), rtol=0, atol=0)


def test_a_model_of_a_wrapper_takes_plain_weights(tmp_path):
    torch.save(network(1).state_dict(), tmp_path / "w.pth")
    model, x = nn.DataParallel(network(0)), torch.randn(5, 6)
    load_weights(model, tmp_path / "w.pth")
    torch.testing.assert_close(model(x), network(1)(x), rtol=0, atol=0)


def test_nothing_is_left_out_where_not_all_keys_fit(tmp_path):
    state = {f"model.{key}": value for key, value in network(1).state_dict().items()} | {"loss.weight": torch.ones(3)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"(?s)Without the prefix 'model\.' 4 of the file's 5 keys.*unexpected: loss"):
        load_weights(network(0), tmp_path / "w.pth")
    wrong = {f"module.{key}": value for key, value in network(1).state_dict().items() if "2.bias" not in key}
    torch.save(wrong, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"(?s)Without the prefix 'module\.' 3 of.*missing: 2\.bias"):
        load_weights(network(0), tmp_path / "w.pth")


def test_a_network_whose_own_keys_begin_so(tmp_path):
    torch.save(Lit(network(1)).state_dict(), tmp_path / "w.pth")
    model, x = Lit(network(0)), torch.randn(5, 6)
    load_weights(model, tmp_path / "w.pth")
    torch.testing.assert_close(of_type(model.model, nn.Module)(x), network(1)(x), rtol=0, atol=0)


def test_the_command_line_says_so(tmp_path):
    state = {f"model.{key}": value for key, value in zoo.build("digits").state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    done = run("check", "digits", "--weights", tmp_path / "w.pth", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["passed"]
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert notes == [f"note: {tmp_path / 'w.pth'}: every key begins with 'model.', which was left out."]
    quiet = run("check", "digits", "--weights", tmp_path / "w.pth", "--json", "--quiet")
    assert quiet == done._replace(stderr="")
