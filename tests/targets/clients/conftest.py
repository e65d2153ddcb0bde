"""What the tests of the client targets share: the environment, and one whose clients are stand-ins."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

import pytest
from client_environments import pretend

from cos_export.errors import UnavailableError
from targets.clients import CLIENTS_SOFTWARE
from targets.workers.environment import WorkerEnvironment, find

HELPERS = Path(__file__).parents[2] / "helpers"

_STAND_IN = f"""
import importlib.abc, importlib.util, runpy, sys
sys.path.append({str(HELPERS)!r})
class StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        ours = name.startswith("cos_export.clients.neurons.") and name.rpartition(".")[2] in {tuple(CLIENTS_SOFTWARE)}
        return importlib.util.spec_from_loader(name, self) if ours else None
    def exec_module(self, module):
        from plain_neurons import PlainNeurons
        module.neurons = PlainNeurons
sys.meta_path.insert(0, StandIn())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="session")
def clients_environment() -> WorkerEnvironment:
    """The clients' environment; without it what needs it is skipped."""
    try:
        environments = [find(software) for software in CLIENTS_SOFTWARE.values()]
    except UnavailableError as error:
        pytest.skip(str(error))
    return environments[0]


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that runs the worker in this Python, on neurons of no client."""
    root = tmp_path / "clients"
    program = tmp_path / "stand_in.py"
    program.write_text(_STAND_IN)
    # Its arguments are -I, -B, the worker and what the worker takes.
    pretend(root, f'#!/bin/sh\nshift 2\nexec {shlex.quote(sys.executable)} -B {shlex.quote(str(program))} "$@"\n')
    monkeypatch.setenv("COS_EXPORT_CLIENTS_ENV", str(root))
    return root


@pytest.fixture
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the target makes its job folders during a test, this process and those it starts alike."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder
