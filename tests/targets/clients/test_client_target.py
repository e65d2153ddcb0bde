"""The client targets with stand-ins for the clients: the environment, the worker, and what is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import random_networks as build
from client_environments import pretend
from integer_networks import in_fixed_point, integer_images

import targets
from calibration import COS
from cos_export.bundle import Bundle
from cos_export.errors import InputError, NetworkError, TargetError, UnavailableError
from cos_export.exporting import export, export_and_verify
from cos_export.network import SpikingNetwork
from cos_export.parity import verify
from targets.clients import CLIENTS_SOFTWARE, ClientTarget, install
from targets.workers.environment import find
from targets.workers.process_group import members

NAMES = tuple(CLIENTS_SOFTWARE)
STEPS = 3


def network_of(seed: int = 3, **changes: Any) -> SpikingNetwork:
    return replace(build.residual(np.random.default_rng(seed)), **changes)


def bundle_of(network: SpikingNetwork, folder: Path, samples: int = 5) -> Bundle:
    integers = network.quantisation is not None
    images = integer_images(network, samples) if integers else build.images(network, samples)
    return export(network, folder / "bundle", STEPS, golden=images)


def _change(stand_ins: Path, line: str, *lines: str) -> None:
    """Puts lines in the place of one in the program that makes the stand-ins."""
    program = stand_ins.parent / "stand_in.py"
    before = program.read_text()
    assert before.count(f"        {line}\n") == 1
    program.write_text(before.replace(f"        {line}\n", "".join(f"        {each}\n" for each in lines)))


def _endless(stand_ins: Path, flood: bool = False) -> None:
    """Makes every step wait, or write without an end."""
    act = "sys.stderr.write('x' * 100000)" if flood else "import time; time.sleep(0.05)"
    waiting = ("def wait(self, current):", "    while True:", f"        {act}", "PlainNeurons.forward = wait")
    _change(stand_ins, "module.neurons = PlainNeurons", *waiting, "module.neurons = PlainNeurons")


@pytest.mark.parametrize("name", NAMES)
def test_a_target_is_known_by_its_client(name: str) -> None:
    assert targets.get(name, deadline=5.0, batch_size=8) == ClientTarget(name, 5.0, 8)
    assert targets.get(name).name == name
    with pytest.raises(InputError, match=f"'{name}' takes no colour. It takes deadline, batch_size"):
        targets.get(name, colour="red")


@pytest.mark.parametrize("options", [{"client": "nest"}, {"deadline": 0.0}, {"batch_size": 0}])
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        ClientTarget(**{"client": "norse", **options})


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_is_said(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COS_EXPORT_CLIENTS_ENV", str(tmp_path / "none"))
    state = targets.get(name).available()
    assert not state.ready
    assert f"{CLIENTS_SOFTWARE[name].title} is not installed" in state.reason
    assert f"cos-export targets --install {name}" in state.reason


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip takes an old sinabs where a new nir is asked for, and says nothing."""
    root = tmp_path / "clients"
    pretend(root, "#!/bin/sh\n")
    monkeypatch.setenv("COS_EXPORT_CLIENTS_ENV", str(root))
    assert targets.get("sinabs").available().version == "sinabs 3.1.3 (Python 3.11.7)"
    packages = root / "lib" / "python3.11" / "site-packages"
    (packages / "sinabs-3.1.3.dist-info").rename(packages / "sinabs-2.0.3.dist-info")
    assert "holds sinabs 2.0.3, and 3.1.3 is needed" in targets.get("sinabs").available().reason
    assert targets.get("norse").available().ready


def test_one_installation_serves_all_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "clients"
    monkeypatch.setenv("COS_EXPORT_CLIENTS_ENV", str(root))
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> Any:
        commands.append(command)
        if command[-2:-1] == ["venv"]:
            (root / "bin").mkdir()
            (root / "bin" / "python").symlink_to(sys.executable)
        for package in [word for word in command if "==" in word]:
            name, _, version = package.partition("==")
            (root / "lib/python3.11/site-packages" / f"{name}-{version}.dist-info").mkdir(parents=True)
        return SimpleNamespace(returncode=0, stdout="{}\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert install("norse").versions == {"norse": "1.1.0"}
    _, torch, clients, probe = commands
    assert "torch==2.13.0" in torch, "before what asks for any torch"
    assert {"--no-deps", "sinabs==3.1.3", "snntorch==1.0.0", "norse==1.1.0", "spikingjelly==2.0.0"} <= set(clients)
    assert "nir==1.0.4" in clients and probe[-1] == "--probe"
    for name in NAMES:
        targets.install(name)
    assert [command[-1] for command in commands[4:]] == ["--probe"] * 4


@pytest.mark.parametrize("name", ["sinabs", "spikingjelly"])
def test_a_bundle_in_a_worker(stand_ins: Path, temporary_folder: Path, tmp_path: Path, name: str) -> None:
    numbers = NAMES.index(name)
    network = network_of(numbers, schedule="layerwise" if numbers % 2 else "synchronous")
    if numbers >= 2:
        network = replace(in_fixed_point(network, numbers), schedule=network.schedule)
    bundle = bundle_of(network, tmp_path)
    stages: list[int] = []
    trace = targets.get(name, batch_size=2).run(
        bundle, bundle.golden.images, STEPS, progress=lambda stage, done, total: stages.append(done)
    )
    assert np.array_equal(trace.logits, bundle.golden.trace.logits)
    for layer, spikes in bundle.golden.trace.spikes.items():
        assert np.array_equal(trace.spikes[layer], spikes)
    assert stages[0] == 0 and stages[-1] == 5
    assert not list(temporary_folder.iterdir())


def test_frames(stand_ins: Path, tmp_path: Path) -> None:
    network = network_of(input_encoding="frames")
    frames = np.random.default_rng(1).integers(-8, 9, (3, STEPS, *network.input_shape)).astype(np.float32)
    bundle = export(network, tmp_path / "bundle", STEPS, golden=frames)
    assert verify(bundle, [ClientTarget("sinabs", batch_size=2)])["sinabs"].mismatches == 0


def test_states_of_each_sample_and_no_spikes(stand_ins: Path, tmp_path: Path) -> None:
    bundle, parity = export_and_verify(
        network_of(), tmp_path / "b", STEPS, golden=build.images(network_of(), 5), calibration=COS(rho=4),
        targets=[ClientTarget("norse")],
    )  # fmt: skip
    assert parity is not None and parity.passed and parity["norse"].mismatches == 0
    golden = bundle.golden
    trace = ClientTarget("norse").run(bundle, golden.images, STEPS, states=golden.trace.states, record_spikes=False)
    assert np.array_equal(trace.logits, golden.trace.logits) and not trace.spikes


def test_a_network_that_the_client_cannot_express(stand_ins: Path, tmp_path: Path) -> None:
    bundle = bundle_of(network_of(), tmp_path)
    _change(
        stand_ins,
        "module.neurons = PlainNeurons",
        "from cos_export.errors import NetworkError",
        "def refuse(layer):",
        "    raise NetworkError(f'not {layer.name}')",
        "module.neurons = refuse",
    )
    with pytest.raises(NetworkError, match=r"^not if1$"):
        ClientTarget("norse").run(bundle, bundle.golden.images, STEPS)


def test_a_client_that_is_broken_is_an_environment_to_be_made_anew(stand_ins: Path, tmp_path: Path) -> None:
    bundle = bundle_of(network_of(), tmp_path)
    _change(stand_ins, "from plain_neurons import PlainNeurons", "import no_such_client")
    with pytest.raises(UnavailableError, match=r"sinabs's environment .* damaged: .*no_such_client.*--install sinabs"):
        ClientTarget("sinabs").run(bundle, bundle.golden.images, STEPS)


def test_a_client_that_fails_while_it_runs(stand_ins: Path, tmp_path: Path) -> None:
    bundle = bundle_of(network_of(), tmp_path)
    _change(stand_ins, "module.neurons = PlainNeurons", "module.neurons = len")
    with pytest.raises(TargetError, match=r"(?s)snnTorch failed while it ran the network\. TypeError.*traceback"):
        ClientTarget("snntorch").run(bundle, bundle.golden.images, STEPS)


@pytest.mark.parametrize("flood", [False, True], ids=["silent", "flooding"])
def test_a_deadline(stand_ins: Path, temporary_folder: Path, tmp_path: Path, flood: bool) -> None:
    bundle = bundle_of(network_of(), tmp_path)
    _endless(stand_ins, flood)
    with pytest.raises(TargetError, match=r"norse was not done within 3 s: 0 of 5 samples were"):
        ClientTarget("norse", deadline=3.0).run(bundle, bundle.golden.images, STEPS)
    assert not list(temporary_folder.iterdir())


def _worker_in(folder: Path) -> int:
    """The worker whose job lies in `folder`, once it has started to run."""
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if any(str(folder) in word for word in words) and list(folder.glob("*/outputs.npy")):
                return int(process.name)
        time.sleep(0.05)
    raise TimeoutError("no worker was running")


def test_a_worker_that_is_killed(stand_ins: Path, temporary_folder: Path, tmp_path: Path) -> None:
    bundle = bundle_of(network_of(), tmp_path)
    _endless(stand_ins)
    threading.Thread(target=lambda: os.kill(_worker_in(temporary_folder), signal.SIGKILL), daemon=True).start()
    with pytest.raises(TargetError, match="The norse worker was killed by SIGKILL"):
        ClientTarget("norse").run(bundle, bundle.golden.images, STEPS)
    assert not list(temporary_folder.iterdir())


def test_a_worker_whose_parent_is_killed(stand_ins: Path, temporary_folder: Path, tmp_path: Path) -> None:
    bundle_of(network_of(), tmp_path)
    _endless(stand_ins)
    command = [sys.executable, "-m", "cos_export", "verify", str(tmp_path / "bundle"), "--targets", "norse"]
    path = {"PYTHONPATH": str(Path(__file__).parents[3])}
    parent = subprocess.Popen(command, env={**os.environ, **path}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    worker = _worker_in(temporary_folder)
    parent.kill()
    parent.wait()
    limit = time.monotonic() + 15
    while time.monotonic() < limit and (members(worker) or any(temporary_folder.iterdir())):
        time.sleep(0.05)
    assert not members(worker)
    assert not list(temporary_folder.iterdir())


def test_a_file_that_was_cut_short_is_noticed(stand_ins: Path, tmp_path: Path) -> None:
    bundle = bundle_of(network_of(), tmp_path)
    record = find(CLIENTS_SOFTWARE["norse"]).path / "lib/python3.11/site-packages/norse-1.1.0.dist-info/RECORD"
    record.write_text("norse/module.py,sha256=abc,100\n")
    with pytest.raises(
        UnavailableError, match=r"norse's environment at .* is damaged: .*norse/module.py cannot be read"
    ):
        ClientTarget("norse").run(bundle, bundle.golden.images, STEPS)
