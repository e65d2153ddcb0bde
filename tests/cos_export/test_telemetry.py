"""Nothing leaves the machine, and nothing is left in the user's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import random_networks as build

from cos_export.exporting import export

ROOT = Path(__file__).parents[2]

RUN = """
import os, sys
import cos_export
result = cos_export.verify(sys.argv[1], targets=["onnxruntime"])
assert result.passed
assert "onnxruntime" in sys.modules
"""

IMPORTS = """
import sys
from targets import get
assert "onnxruntime" not in sys.modules
assert get("onnxruntime").available().ready
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def _run(home: Path, *command: str) -> str:
    """Runs a program with an empty home, and returns the calls of the network that it made, if strace is here."""
    trace = home.with_name("trace.txt")
    tracer = shutil.which("strace")
    watched = [tracer, "-f", "-qq", "-e", "trace=network", "-o", str(trace)] if tracer else []
    # What the suite runs under does not matter: a user may even have asked for the opposite.
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT), "ORT_DISABLE_TELEMETRY": "0"}
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        environment[name] = str(home / name)
    subprocess.run([*watched, *command], env=environment, check=True, capture_output=True, timeout=120)
    return trace.read_text() if tracer else ""


def _assert_private(home: Path, calls: str) -> None:
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert [line for line in calls.splitlines() if "AF_INET" in line or "getaddrinfo" in line] == []


def test_a_bundle_is_verified_in_private(home: Path, tmp_path: Path) -> None:
    network = build.residual(np.random.default_rng(0))
    export(network, tmp_path / "bundle", steps=2, golden=build.images(network, 2))
    _assert_private(home, _run(home, sys.executable, "-c", RUN, str(tmp_path / "bundle")))


def test_whatever_is_imported_first(home: Path) -> None:
    _assert_private(home, _run(home, sys.executable, "-c", IMPORTS))
