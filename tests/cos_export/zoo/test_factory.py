"""A user's own code that builds a network, and all the ways in which it fails."""

import os
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from cos_export.errors import InputError
from cos_export.zoo.factory import build_from_factory

FILES = {
    "instance": "from torch import nn\nnet = nn.Linear(3, 2)\n",
    "inner": "def net():\n    return 1 + 'a'\n",
    "arguments": "def net(width, depth): pass\n",
    "missing": "import not_installed_here\n",
    "exits": "raise SystemExit(0)\n",
    "exits_later": "import sys\ndef net():\n    sys.exit()\n",
    "leaves": "import os\nos._exit(0)\n",
    "leaves_later": "from os import _exit\ndef net():\n    _exit(7)\n",
    "syntax": "def net(:\n",
    "divides": "1 / 0\n",
    "odd_base": "class Odd(BaseException): pass\ndef net():\n    raise Odd('x')\n",
    "library": "import numpy as np\ndef net():\n    return np.load('gone.npy')\n",
    "targets": "def get2(): pass\n",
    "from_hidden": "from targets import get2\n",
    "holds_hidden": "import targets as t\nfrom torch import nn\ndef net(): return nn.Linear(3, 2)\n",
    "lazy_hidden": "def net():\n    import targets\n    return targets.get2()\n",
    "json": "def net(): pass\n",
}

FAILURES = {
    "instance:net": "is a network, a Linear. Name a function that returns it",
    "inner:net": r"'inner:net' fails: TypeError: unsupported operand(?s:.*)inner\.py:2: return 1 \+ 'a'",
    "arguments:net": "cannot be called without arguments: missing a required argument: 'width'",
    "missing:net": r"No module named(?s:.*)missing\.py:1: import(?s:.*)Install 'not_installed_here'",
    "exits:net": r"cannot be imported: it ends Python \(exit code 0\)(?s:.*)exits\.py:1: raise SystemExit",
    "exits_later:net": r"fails: it ends Python \(exit code 0\)(?s:.*)exits_later\.py:3: sys\.exit\(\)",
    "leaves:net": r"cannot be imported: it ends Python \(exit code 0\)(?s:.*)leaves\.py:2: os\._exit\(0\)",
    "leaves_later:net": r"it ends Python \(exit code 7\)(?s:.*)leaves_later\.py:3",
    "syntax:net": r"SyntaxError: invalid syntax(?s:.*)syntax\.py:1: def net\(:",
    "divides:net": r"ZeroDivisionError(?s:.*)divides\.py:1: 1 / 0",
    "odd_base:net": r"fails: Odd: x(?s:.*)odd_base\.py:3",
    "library:net": r"FileNotFoundError(?s:.*)library\.py:3: return np\.load",
    ":": "is not spelled package.module:factory",
    ":make": "is not spelled package.module:factory",
    ".net:make": "is not spelled package.module:factory",
    "a:b:c": "is not spelled package.module:factory",
    "inner:net()": "without parentheses",
    "inner:": "is not spelled",
    "builtins:exit": "it ends Python",
    "builtins:print": "returned a NoneType",
    "models/mine.py:net": r"names a file. Name the module as Python imports it: models\.mine:net\.",
    "inner.py:net": r"names a file(?s:.*): inner:net\.",
    "/there/mine.py:net": r"in the folder /there: mine:net\.",
    "../mine.py:net": r"in the folder \.\.: mine:net\.",
    "nowhere.sub:net": "No module named 'nowhere'. Run the command where 'nowhere' is",
    "inner:gone": "has no attribute 'gone'",
    "targets:get2": r"not the module in this folder(?s:.*)in place of .*targets\.py: rename that",
    "from_hidden:net": r"cannot import name 'get2'(?s:.*)in place of .*targets\.py: rename that",
    "holds_hidden:net": r"imports 'targets'(?s:.*)in place of .*targets\.py: rename that",
    "lazy_hidden:net": r"lazy_hidden\.py:3(?s:.*)in place of .*targets\.py: rename that",
    "json:net": r"not the module in this folder(?s:.*)in place of .*json\.py: rename that",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of a user's modules, the current one."""
    for name, source in FILES.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name in FILES:
            del sys.modules[name]


@pytest.mark.parametrize("spec", FAILURES)
def test_what_fails_is_one_error_with_its_line(folder, spec):
    leave = os._exit
    with pytest.raises(InputError, match=FAILURES[spec]) as caught:
        build_from_factory(spec)
    assert "targets" in spec or "hidden" in spec or "targets.py" not in str(caught.value)
    assert os._exit is leave


def test_a_child_that_the_code_forks_still_ends(folder):
    (folder / "forks.py").write_text(
        "import os\nfrom torch import nn\ndef net():\n    child = os.fork()\n    if child == 0:\n        os._exit(3)\n"
        "    return nn.Linear(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 2)\n"
    )
    assert build_from_factory("forks:net").in_features == 3
    del sys.modules["forks"]


def wrapped():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.DataParallel(nn.Linear(4, 2)))
    prune.l1_unstructured(inner[0], "weight", 0.5)
    return nn.DataParallel(inner)


def test_wrappers_are_taken_off(monkeypatch):
    monkeypatch.setitem(sys.modules, "wrapping_users", sys.modules[__name__])
    module = build_from_factory("wrapping_users:wrapped")
    reference, x = wrapped().module, torch.randn(5, 3)
    assert set(module.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    weight = reference[0].weight_orig * reference[0].weight_mask
    hidden = (x @ weight.T + reference[0].bias).clamp(min=0)
    expected = hidden @ reference[2].module.weight.T + reference[2].module.bias
    torch.testing.assert_close(module(x), expected)
