"""A graph without an end has one here: in time, and at Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import onnx
import onnxruntime
import pytest
import random_networks as build
from endless_graph import make_endless, make_slow_to_open

from cos_export import exporting
from cos_export.errors import InputError, NetworkError, TargetError
from cos_export.onnx_file import build_model, check, writer
from cos_export.onnx_file.session import plenty_of_seconds, run_session
from targets import get
from targets.verification import verify

ROOT = Path(__file__).parents[3]
SAMPLES = 3


@pytest.fixture
def endless(tmp_path):
    """A bundle that is in order but for its ONNX graph."""
    network = build.residual(np.random.default_rng(0))
    bundle = exporting.export(network, tmp_path / "bundle", steps=2, golden=build.images(network, SAMPLES))
    make_endless(bundle.onnx_path)
    bundles.relist(bundle.path)
    return bundle.path


def _session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_a_loop_without_an_end_is_ended_in_time(endless):
    feeds = {"images": build.images(build.residual(np.random.default_rng(0)), 1)}
    threads = set(threading.enumerate())
    with pytest.raises(TimeoutError, match=r"not done within 0\.5 s"):
        run_session(_session(endless / "model.onnx"), ["logits"], feeds, 0.5)
    assert set(threading.enumerate()) <= threads, "it has ended, and is not left to itself"


def test_a_run_that_ends_is_that_of_the_session(tmp_path):
    network = build.residual(np.random.default_rng(0))
    onnx.save(build_model(network, 2), tmp_path / "model.onnx")
    session, feeds = _session(tmp_path / "model.onnx"), {"images": build.images(network, 2)}
    expected = session.run(["logits"], feeds)
    np.testing.assert_array_equal(run_session(session, ["logits"], feeds, 60.0)[0], expected[0])
    with pytest.raises(Exception, match="images"):
        run_session(session, ["logits"], {}, 60.0)


def test_the_time_by_default_grows_with_the_work():
    network = build.residual(np.random.default_rng(0))
    few, many = plenty_of_seconds(network, 1, 1), plenty_of_seconds(network, 10_000, 32)
    assert 60.0 <= few < many


def test_verify_ends_by_its_deadline(endless):
    with pytest.raises(TargetError, match=r"not done within 2 s: 0 of 3 samples.*--deadline.*loop without an end"):
        verify(endless, "onnxruntime", deadline=2.0)


@pytest.fixture
def slow(tmp_path):
    """A bundle that is in order but for constants of its ONNX graph."""
    network = build.residual(np.random.default_rng(0))
    bundle = exporting.export(network, tmp_path / "bundle", steps=2, golden=build.images(network, SAMPLES))
    make_slow_to_open(bundle.onnx_path)
    bundles.relist(bundle.path)
    return bundle.path


def test_constants_that_take_hours_are_given_up(slow):
    threads = set(threading.enumerate())
    with pytest.raises(TargetError, match=r"not done within 1 s: .*--deadline.*constants that"):
        verify(slow, "onnxruntime", deadline=1.0)
    with pytest.raises(KeyboardInterrupt), _interrupted_after(1.0):
        verify(slow, "onnxruntime")
    assert set(threading.enumerate()) <= threads, "it has ended, and is not left to itself"


def test_opening_has_a_deadline(slow, monkeypatch):
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *arguments, **options: time.sleep(2.0))
    with pytest.raises(TargetError, match=r"not done within 0\.5 s: it was still opening .*--deadline.*"):
        verify(slow, "onnxruntime", deadline=0.5)


@contextlib.contextmanager
def _interrupted_after(seconds):
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def test_without_a_deadline_there_is_one_for_each_batch(endless, monkeypatch):
    monkeypatch.setattr("targets.onnxruntime.plenty_of_seconds", lambda network, samples, steps: 0.1 * samples * steps)
    with pytest.raises(TargetError, match=r"not done within 0\.6 s for a batch: 0 of 3 samples"):
        verify(endless, "onnxruntime")


def test_the_check_at_export_ends(tmp_path, monkeypatch):
    network, original = build.residual(np.random.default_rng(0)), check.check_onnx

    def spoilt(network, path, steps, calibration):
        make_endless(path)
        return original(network, path, steps, calibration)

    monkeypatch.setattr(writer, "check_onnx", spoilt)
    monkeypatch.setattr(check, "plenty_of_seconds", lambda network, samples, steps: 0.5)
    with pytest.raises(NetworkError, match=r"cannot be run: it was not done within 0\.5 s"):
        writer.write_onnx(network, tmp_path / "model.onnx", 2)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("target", ["pytorch", "onnxruntime", "lava", "lava:faithful"])
def test_every_target_takes_a_deadline(target):
    made: Any = get(target, deadline=5.0)
    assert made.deadline == 5.0
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="deadline must be a positive number of seconds"):
            get(target, deadline=bad)


def test_the_reference_keeps_to_a_deadline(endless):
    with pytest.raises(TargetError, match=r"PyTorch was not done within 1e-09 s: \d of 3 samples"):
        verify(endless, "pytorch", deadline=1e-9)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_ctrl_c_ends_the_command(endless, number):
    process = subprocess.Popen(
        [sys.executable, "-m", "cos_export", "verify", str(endless)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        _wait_for_the_run(process)
        process.send_signal(number)
        said = process.communicate(timeout=20)[1].decode()
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Interrupted" in said
    assert "Traceback" not in said


def test_a_deadline_on_the_command_line(endless):
    done = subprocess.run(
        [sys.executable, "-m", "cos_export", "verify", str(endless), "--deadline", "0.5"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "not done within 0.5 s" in done.stderr


def _wait_for_the_run(process):
    """Until a thread of the process has been computing for a while: the loop has begun."""
    limit = time.monotonic() + 60.0
    while time.monotonic() < limit and process.poll() is None:
        for task in Path(f"/proc/{process.pid}/task").glob("*"):
            try:
                name = (task / "comm").read_text().strip()
                used = int((task / "stat").read_text().rpartition(")")[2].split()[11])
            except OSError:
                continue
            if task.name != str(process.pid) and name.startswith(("python", "ONNX")) and used > 50:
                return
        time.sleep(0.05)
    raise TimeoutError(f"the run has not begun; the command ended with {process.poll()}")
