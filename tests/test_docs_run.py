"""What a reader would copy: every block of Python in the documents runs, and every command is one that there is.

Commands that are quick are run in a folder with small data, shortened by options and without Lava. Of the others, and
of all programs in `benchmarks/`, the options are parsed.
"""

from __future__ import annotations

import argparse
import importlib
import re
import runpy
import shlex
import sys
import types
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import command_line
import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.distributed.run import get_args_parser

import cli
import cos_export as ce
from calibration import Static, method_named, stage
from cos_export import training, zoo
from cos_export.bundle.results import write_inputs
from targets.results import RecordedResults

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
QUICK = ("check", "convert-and-export", "verify", "run", "report", "offsets")
"""Commands that are run."""

SLOW = ("resnet20", "vgg9")
"""But not where one of these is in a word of theirs."""

MODULE = """
import torch
from torch import nn

import cos_export as ce


def make_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), ce.QCFS(4), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10)
    )
"""


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python_blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """The words of every line in a block of code that calls one of our programs, without what is set before it."""
    page = re.sub(r"\\\n\s*", " ", page)
    fenced = re.findall(r"^```\w*\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    lines = [*re.findall(r"^ {4}(.+)$", page, re.MULTILINE), *"".join(fenced).splitlines()]
    settings = r"(?:[A-Z_]+=\S+ )*"
    matches = [re.match(rf"{settings}((?:cos-export|python|torchrun|make) .+)", line) for line in lines]
    return [shlex.split(line[1], comments=True) for line in matches if line]


@cache
def app() -> Any:
    return typer.main.get_command(cli._app())


def check_command(words: list[str]) -> None:
    """Parses the options of a command, as far as they can be wrong before any file is opened."""
    match words:
        case ["cos-export", name, *arguments]:
            app().commands[name].make_context(name, list(arguments))
        case ["torchrun", *arguments]:
            given = get_args_parser().parse_args(arguments)
            assert given.module and given.training_script == "cos_export"
            name, *arguments = given.training_script_args
            app().commands[name].make_context(name, arguments)
        case ["python", script, *arguments] if script.startswith("benchmarks/"):
            check_benchmark(ROOT / script, arguments)
        case ["python", script, *_] if script.startswith("examples/"):
            assert (ROOT / script).is_file()
        case ["make", *targets]:
            rules = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
            assert {word for word in targets if "=" not in word} <= set(rules)
        case _:
            pytest.fail(f"Nothing checks {shlex.join(words)}")


class ParsedError(Exception):
    """The options of a benchmark have been taken."""


def check_benchmark(script: Path, arguments: list[str]) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parsed(parser: argparse.ArgumentParser, given: Any = None, namespace: Any = None) -> None:
        parse(parser, given, namespace)
        raise ParsedError

    with (
        mock.patch.object(sys, "path", [str(script.parent), *sys.path]),
        mock.patch.object(sys, "argv", [script.name, *arguments]),
        mock.patch.object(argparse.ArgumentParser, "parse_args", parsed),
        pytest.raises(ParsedError),
    ):
        runpy.run_path(str(script), run_name="__main__")


def shortened(arguments: list[str]) -> list[str]:
    """The same command with little work, and on targets that start at once."""
    words = [word.replace(",lava", "") if word != "lava" else "onnxruntime" for word in arguments]
    if words[0] == "convert-and-export":
        words += ["--golden", "4", "--samples", "32"]
        words += ["--updates", "2", "--rounds", "1"] if "static" in words else []
    return [*words, "--samples", "20"] if words[0] in ("offsets", "run") else words


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the documents name, all of them small."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "models.py").write_text(MODULE)
    rng = np.random.default_rng(0)
    for name, samples in (("images", 60), ("cifar10_train", 8), ("cifar10_test", 8)):
        images = rng.integers(0, 256, (samples, 3, 32, 32), dtype=np.uint8)
        np.savez(f"{name}.npz", images=images, labels=np.arange(samples) % 10)
    for label in ("cat", "dog"):
        (tmp_path / "folder" / label).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "folder" / label / "1.png")
    return tmp_path


@pytest.mark.parametrize("path", [path for path in PAGES if commands(path.read_text("utf-8"))], ids=named)
def test_every_command_can_be_given(path: Path) -> None:
    for words in commands(path.read_text("utf-8")):
        check_command(words)


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_commands_in_running_text_are_there_with_their_options(path: Path) -> None:
    for line in re.findall(r"`cos-export ([^`]+)`", path.read_text("utf-8")):
        name, *words = shlex.split(line)
        command = app().commands[name]
        command.get_params(typer.Context(command))
        known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= known, line


@pytest.mark.parametrize("name", ["README.md", "docs/numerics.md", "docs/methods/offset-spikes.md"])
def test_quick_commands_run(name: str, folder: Path) -> None:
    importlib.invalidate_caches()
    models = importlib.import_module("my_package.models")
    save_file(models.make_network().state_dict(), "trained.safetensors")
    lines = [words[1:] for words in commands((ROOT / name).read_text("utf-8")) if words[0] == "cos-export"]
    chosen = [words for words in lines if words[0] in QUICK and not any(slow in shlex.join(words) for slow in SLOW)]
    assert chosen
    for words in chosen:
        done = command_line.run(*shortened(words), cwd=folder)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("path", [path for path in PAGES if python_blocks(path.read_text("utf-8"))], ids=named)
def test_the_blocks_of_python_run(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "Recipe", lambda **chosen: RECIPE(**chosen | {"epochs": 1, "batch_size": 4}))
    monkeypatch.setattr(stage, "method_named", lambda name: Static(updates=2) if name == "static" else METHOD(name))
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", torchvision_datasets())
    if "QCFS_CIFAR100_resnet18.pth" in path.read_text("utf-8"):
        torch.save(zoo.build("resnet18", levels=8, classes=100).state_dict(), "QCFS_CIFAR100_resnet18.pth")
    save_file(network(nn.ReLU()).state_dict(), "relu.safetensors")
    dataset = ce.load_dataset("images.npz")
    names: dict[str, Any] = {
        "ce": ce,
        "zoo": zoo,
        "model": network(ce.QCFS(4)),
        "relu_model": network(nn.ReLU()),
        "my_network": lambda: network(nn.ReLU()),
        "dataset": dataset,
        "images": dataset.images,
        "example": dataset.images[:1],
        "example_input": dataset.images[:1],
    }
    if path.name == "any_runtime.md":
        mine = ce.export(ce.capture(names["model"], dataset.images[:1]), "out/mine", 2, golden=dataset.images[:4])
        write_inputs(mine, "inputs.npz")
    for block in python_blocks(path.read_text("utf-8")):
        exec(compile(block, named(path), "exec"), names)
    if path.name == "README.md":
        assert names["result"].passed
    if path.name == "any_runtime.md":
        assert ce.verify(mine, [RecordedResults("results.npz", mine)]).passed


RECIPE, METHOD = training.Recipe, method_named
"""As they are, where those of the documents are made short."""


def network(activation: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, padding=1), activation, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10)
    return nn.Sequential(*layers).eval()


def torchvision_datasets() -> types.ModuleType:
    """In place of the library, which is not needed: its CIFAR-10 with few images."""
    module = types.ModuleType("torchvision.datasets")
    images = np.zeros((4, 32, 32, 3), np.uint8)
    module.CIFAR10 = lambda root, train, download: types.SimpleNamespace(data=images, targets=[0, 1, 2, 3])  # type: ignore[attr-defined]
    return module
