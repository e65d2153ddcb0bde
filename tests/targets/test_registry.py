import sys
from typing import Any

import numpy as np
import pytest

import targets
from cos_export.errors import InputError, UnavailableError
from targets.onnxruntime import OnnxRuntimeTarget
from targets.pytorch import PyTorchTarget


def test_names():
    clients = ("sinabs", "snntorch", "norse", "spikingjelly")
    assert targets.names() == ("pytorch", "onnxruntime", "openvino", "lava", *clients, "c")


def test_get_makes_the_target_with_its_options():
    target = targets.get("pytorch", device="cpu")
    assert isinstance(target, PyTorchTarget)
    assert (target.name, target.device) == ("pytorch", "cpu")
    target = targets.get("onnxruntime", threads=1, batch_size=8)
    assert isinstance(target, OnnxRuntimeTarget)
    assert (target.threads, target.batch_size) == (1, 8)


@pytest.mark.parametrize("name", ["lava", "lava:faithful", "lava:netx"])
def test_a_back_end_is_chosen_behind_a_colon(name):
    target: Any = targets.get(name)
    assert target.name == name
    assert target.backend == (name.partition(":")[2] or "batched")


def test_a_back_end_that_there_is_not():
    with pytest.raises(InputError, match="batched, faithful, netx, and is 'quick'"):
        targets.get("lava:quick")
    with pytest.raises(InputError, match="'pytorch' takes no backend"):
        targets.get("pytorch:quick")


def test_unknown_name_lists_those_there_are():
    with pytest.raises(InputError, match=r"'loihi'.*pytorch, onnxruntime, openvino, lava"):
        targets.get("loihi")


def test_unknown_option_lists_those_there_are():
    with pytest.raises(InputError, match=r"'pytorch' takes no colour\. It takes device, batch_size"):
        targets.get("pytorch", colour="red")


def test_every_target_says_whether_it_can_run():
    for name in targets.names():
        target = targets.get(name)
        availability = target.available()
        assert target.name == name
        assert availability.ready or availability.reason


@pytest.mark.parametrize("damage", ["missing", "without the class"])
def test_a_target_that_cannot_be_imported_is_listed_with_its_reason(monkeypatch, damage):
    monkeypatch.setitem(sys.modules, "targets.onnxruntime", None if damage == "missing" else type(sys)("empty"))
    target: Any = targets.get("onnxruntime", threads=1)
    availability = target.available()
    assert target.name == "onnxruntime"
    assert not availability.ready
    assert availability.reason
    with pytest.raises(UnavailableError, match="onnxruntime"):
        target.run(None, np.zeros((1, 1)), 1)


def test_asking_for_names_imports_no_target():
    import subprocess

    code = (
        "import sys, targets; targets.names(); sys.exit(any(n in sys.modules for n in ('onnxruntime', 'targets.lava')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, env=_environment()).returncode == 0


def _environment():
    import os
    from pathlib import Path

    return {**os.environ, "PYTHONPATH": str(Path(targets.__file__).parents[1])}


def test_install_names_what_it_can_install():
    with pytest.raises(InputError, match=r"'onnxruntime' has no environment of its own. These have: lava, sinabs, "):
        targets.install("onnxruntime")
    with pytest.raises(InputError, match="no target 'loihi'"):
        targets.install("loihi")
