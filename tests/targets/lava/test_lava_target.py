"""The target's face: options, availability, and the environment's making."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from random_networks import residual, sequential

import targets
from cos_export.errors import InputError, UnavailableError
from cos_export.network.workload import multiply_accumulates
from targets.lava import LAVA, LavaTarget, find, install, installation
from targets.lava.lava_target import _batch_size, _deadline
from targets.workers.environment import WorkerEnvironment, location
from targets.workers.job import PROTOCOL


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment's place, with nothing in it."""
    monkeypatch.setenv("COS_EXPORT_LAVA_ENV", str(tmp_path / "lava"))
    return tmp_path / "lava"


def _pretend(root: Path, version: str | None = "0.10.0", dl_version: str | None = "0.6.0") -> None:
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "python").symlink_to(sys.executable)
    packages = root / "lib" / "python3.10" / "site-packages"
    packages.mkdir(parents=True)
    (root / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.10.13\n")
    if version:
        (packages / f"lava_nc-{version}.dist-info").mkdir()
    if dl_version:
        (packages / f"lava_dl-{dl_version}.dist-info").mkdir()


def test_the_target_is_known_by_its_name() -> None:
    target = targets.get("lava", backend="faithful", deadline=5.0)
    assert target == LavaTarget("faithful", 5.0)
    assert target.name == "lava:faithful"  # a report may hold it beside the batched "lava"


@pytest.mark.parametrize(
    "options", [{"backend": "fast"}, {"deadline": 0.0}, {"deadline": float("nan")}, {"batch_size": 0}, {"cores": 0}]
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        LavaTarget(**options)


def test_both_sides_speak_the_same_protocol(worker_modules: SimpleNamespace) -> None:
    assert worker_modules.protocol.PROTOCOL == PROTOCOL


def test_the_default_place_is_within_the_running_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COS_EXPORT_LAVA_ENV", raising=False)
    assert location(LAVA) == Path(sys.prefix) / "share" / "cos-export" / "lava"


def test_an_environment_is_found_by_its_files(root: Path) -> None:
    assert not LavaTarget().available().ready
    _pretend(root)
    assert find() == WorkerEnvironment(
        LAVA, root, root / "bin" / "python", {"lava-nc": "0.10.0", "lava-dl": "0.6.0"}, "3.10.13"
    )
    available = LavaTarget().available()
    assert (available.ready, available.version) == (True, "lava-nc 0.10.0 (Python 3.10.13)")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda root: (root / "installing.json").write_text("{}"), "was never completed"),
        (lambda root: (root / "bin" / "python").unlink(), "is not a program"),
        (lambda root: (root / "lib/python3.10/site-packages/lava_nc-0.10.0.dist-info").rmdir(), "holds no lava-nc"),
    ],
)
def test_an_environment_that_cannot_be_used_says_why(root: Path, spoil: Any, reason: str) -> None:
    _pretend(root)
    spoil(root)
    available = LavaTarget().available()
    assert not available.ready
    assert reason in available.reason
    assert "cos-export targets --install lava" in available.reason


def test_another_version_of_lava_is_refused(root: Path) -> None:
    _pretend(root, "0.9.0")
    with pytest.raises(UnavailableError, match=r"holds lava-nc 0\.9\.0, and 0\.10\.0 is needed"):
        find()


def test_without_lava_dl_only_netx_cannot_be_used(root: Path) -> None:
    _pretend(root, dl_version=None)
    assert LavaTarget().available().ready
    available = LavaTarget("netx").available()
    assert not available.ready
    assert "holds no lava-dl, and the netx back end needs 0.6.0" in available.reason


def test_lava_dl_is_added_to_an_environment_without_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It brings a stray package `tests`, which must go, and PyTorch, which must not come."""
    _pretend(root, dl_version=None)
    packages = root / "lib" / "python3.10" / "site-packages"
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> Any:
        commands.append(command)
        if command[-1].startswith("lava-dl"):
            (packages / "lava_dl-0.6.0.dist-info").mkdir()
            (packages / "tests").mkdir()
        return SimpleNamespace(returncode=0, stdout="{}\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert install().versions["lava-dl"] == "0.6.0"
    assert [command[-1] for command in commands] == ["h5py", "lava-dl==0.6.0", "--probe"]
    assert "--no-deps" in commands[1]
    assert not (packages / "tests").exists()


def test_installing_what_is_there_only_tries_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(root)
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> Any:
        commands.append(command)
        return SimpleNamespace(returncode=0, stdout="{}\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert install() == find()
    assert [command[-1] for command in commands] == ["--probe"]


def test_a_folder_of_somebody_else_is_left_alone(root: Path) -> None:
    root.mkdir()
    (root / "thesis.txt").write_text("do not delete")
    with pytest.raises(InputError, match=r"is not an environment that was installed here.*COS_EXPORT_LAVA_ENV"):
        install()
    assert (root / "thesis.txt").read_text() == "do not delete"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COS_EXPORT_LAVA_ENV", str(tmp_path / "file" / "lava"))
    with pytest.raises(UnavailableError, match=r"cannot be made at .*file/lava.*Name a folder"):
        install()


def test_an_installation_without_network_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried where an earlier one was interrupted, and quotes what pip says."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    _pretend(root)
    (root / "installing.json").write_text("{}")
    stages: list[int] = []
    with pytest.raises(UnavailableError, match=r"(?s)pip could not install Lava.*No matching distribution.*try"):
        install(lambda stage, done, total: stages.append(done))
    assert not root.exists()
    assert stages == [0, 1]


def test_an_interrupted_installation_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        install()
    assert not root.exists()


def test_without_python_3_10_the_running_one_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refusing = tmp_path / "python3.10"
    refusing.write_text("#!/bin/sh\nexit 127\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert installation._choose_python() == (Path(sys.executable), False)
    (tmp_path / ".pyenv/versions/3.10.9/bin").mkdir(parents=True)
    working = tmp_path / ".pyenv/versions/3.10.9/bin/python3.10"
    working.write_text("#!/bin/sh\nexit 0\n")
    working.chmod(0o755)
    assert installation._choose_python() == (working, True)


def test_groups_are_of_nearly_equal_size() -> None:
    network = residual(np.random.default_rng(0))
    assert _batch_size(network, 10) == 10
    assert _batch_size(network, 257) == 129


def test_the_deadline_grows_with_the_work() -> None:
    network = sequential(np.random.default_rng(0), (4,), [], classes=3)
    assert multiply_accumulates(network) == 4 + 12 + 3
    few, many = _deadline(network, 1, 1, "batched"), _deadline(network, 100_000, 4, "batched")
    assert 120.0 < few < 121.0 < many
    assert _deadline(network, 10**6, 4, "faithful") > _deadline(network, 10**6, 4, "batched")
