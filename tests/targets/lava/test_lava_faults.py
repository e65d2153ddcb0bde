"""Every way in which a run may die: what is said, and that nothing is left of it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from random_networks import IF, affine, images, sequential

from cos_export.errors import TargetError, UnavailableError
from cos_export.network import SpikingNetwork
from targets.lava import LAVA, LavaTarget, run_network
from targets.workers import process_group, supervisor
from targets.workers.environment import WorkerEnvironment
from targets.workers.job import PROTOCOL, Job
from targets.workers.process_group import members
from targets.workers.supervisor import supervise

MANY_STEPS = 60_000
"""A run that would take minutes."""

_TESTS = Path(__file__).parents[2]
_PARENT = f"""
import sys
sys.path[:0] = [{str(_TESTS.parent)!r}]
sys.path.append({str(_TESTS / "helpers")!r})
from targets.lava import run_network
from test_lava_faults import MANY_STEPS, small_network, two_images
run_network(small_network(), two_images(), MANY_STEPS, record_spikes=False)
"""


def small_network() -> SpikingNetwork:
    """Two layers of neurons and a readout: three processes."""
    rng = np.random.default_rng(0)
    return sequential(rng, (4,), [affine(rng, 4, 5), IF, affine(rng, 5, 5), IF])


def two_images() -> Any:
    """Two samples."""
    return images(small_network(), 2)


@pytest.fixture
def nothing_left(tmp_path: Path, worker_traces: SimpleNamespace) -> Iterator[SimpleNamespace]:
    """Checks, after a test that notes down the job's prefix and process group, that nothing of either is left."""
    noted = SimpleNamespace(prefixes=[], groups=[])
    yield noted
    assert noted.prefixes, "the test noted no prefix"
    limit = time.monotonic() + 15.0
    while time.monotonic() < limit:
        processes = [number for group in noted.groups for number in worker_traces.members(group)]
        segments = worker_traces.segments(tmp_path, noted.prefixes)
        folders = list(tmp_path.glob("cos-export-lava-*"))
        if not (processes or segments or folders):
            return
        time.sleep(0.05)
    assert not processes
    assert not segments
    assert not folders


def _silent(stage: str, done: int, total: int) -> None:
    return None


def _spoil(job: Job, name: str, key: str, array: np.ndarray) -> None:
    document = json.loads((job.folder / "job.json").read_text())
    file = next(node["arrays"][key] for node in document["nodes"] if node["name"] == name)
    np.save(job.folder / file, array)


def test_a_model_that_cannot_be_made(
    lava_environment: WorkerEnvironment, written_job: Callable[..., Job], nothing_left: SimpleNamespace
) -> None:
    job = written_job(small_network(), two_images())
    nothing_left.prefixes.append(job.segment_prefix)
    _spoil(job, "if1", "threshold", np.ones(3, np.float32))
    with pytest.raises(
        TargetError, match=r"(?s)threshold must have shape \(5,\), and has \(3,\).*Traceback.*neurons.py"
    ):
        supervise(lava_environment, job, _silent)


def test_a_step_that_raises(
    lava_environment: WorkerEnvironment, written_job: Callable[..., Job], nothing_left: SimpleNamespace
) -> None:
    job = written_job(small_network(), two_images(), steps=50)
    nothing_left.prefixes.append(job.segment_prefix)
    _spoil(job, "affine2", "weight", np.ones((5, 6), np.float32))
    with pytest.raises(TargetError, match=r"(?s)ValueError: matmul.*ends:.*run_spk.*operations.py"):
        supervise(lava_environment, job, _silent)


def test_a_deadline(
    lava_environment: WorkerEnvironment, written_job: Callable[..., Job], nothing_left: SimpleNamespace
) -> None:
    job = written_job(small_network(), two_images(), steps=MANY_STEPS, backend="faithful", deadline=3.0)
    nothing_left.prefixes.append(job.segment_prefix)
    began = time.monotonic()
    with pytest.raises(TargetError, match=r"not done within 3 s: 0 of 2 samples were\. Allow it more with deadline="):
        supervise(lava_environment, job, _silent)
    assert time.monotonic() - began < 20.0


def _when_it_runs(folder: Path, traces: SimpleNamespace, noted: SimpleNamespace, act: Callable[[int], None]) -> None:
    """Does something to a worker's process group once its network runs, while this thread waits for the result."""

    def wait_and_act() -> None:
        group = traces.leader_of(folder)
        noted.groups.append(group)
        noted.prefixes.extend(traces.prefixes(folder))
        act(group)

    threading.Thread(target=wait_and_act, daemon=True).start()


def _newest(group: int) -> int:
    """A process of the network: those are started last."""
    return max(members(group))


@pytest.mark.parametrize(
    ("kill", "message"),
    [
        (lambda group: os.kill(_newest(group), signal.SIGKILL), "A process of the network ended.*killed by SIGKILL"),
        (lambda group: os.kill(group, signal.SIGKILL), "The Lava worker was killed by SIGKILL"),
        (lambda group: os.killpg(group, signal.SIGKILL), "The Lava worker was killed by SIGKILL"),
    ],
    ids=["child", "main", "all"],
)
def test_a_process_that_is_killed(
    lava_environment: WorkerEnvironment,
    temporary_folder: Path,
    worker_traces: SimpleNamespace,
    nothing_left: SimpleNamespace,
    kill: Callable[[int], None],
    message: str,
) -> None:
    """If all are killed at once, not even Python's resource tracker is left to free the shared memory."""
    _when_it_runs(temporary_folder, worker_traces, nothing_left, kill)
    with pytest.raises(TargetError, match=message):
        run_network(small_network(), two_images(), MANY_STEPS, record_spikes=False, options=LavaTarget(deadline=60.0))


def test_a_process_that_hangs(
    lava_environment: WorkerEnvironment,
    temporary_folder: Path,
    worker_traces: SimpleNamespace,
    nothing_left: SimpleNamespace,
) -> None:
    """A stopped process ends on no polite signal."""

    def stop(group: int) -> None:
        os.kill(_newest(group), signal.SIGSTOP)

    _when_it_runs(temporary_folder, worker_traces, nothing_left, stop)
    with pytest.raises(TargetError, match="not done within 6 s"):
        run_network(small_network(), two_images(), MANY_STEPS, record_spikes=False, options=LavaTarget(deadline=6.0))


@pytest.mark.parametrize("choose", [_newest, lambda group: group], ids=["child", "main"])
def test_a_process_that_is_stopped_is_noticed_before_any_deadline(
    lava_environment: WorkerEnvironment,
    temporary_folder: Path,
    worker_traces: SimpleNamespace,
    nothing_left: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    choose: Callable[[int], int],
) -> None:
    assert supervisor._STOPPED_SECONDS <= 20.0
    monkeypatch.setattr(supervisor, "_STOPPED_SECONDS", 0.6)
    monkeypatch.setattr(process_group, "_LOOK", 0.2)
    stopped: list[tuple[int, float]] = []

    def stop(group: int) -> None:
        stopped.append((choose(group), time.monotonic()))
        os.kill(stopped[0][0], signal.SIGSTOP)

    _when_it_runs(temporary_folder, worker_traces, nothing_left, stop)
    with pytest.raises(TargetError, match=r"Process \d+ of the Lava worker has been stopped") as caught:
        run_network(small_network(), two_images(), MANY_STEPS, record_spikes=False, options=LavaTarget(deadline=3600.0))
    assert f"Process {stopped[0][0]} " in str(caught.value)
    assert time.monotonic() - stopped[0][1] < 20.0


@pytest.mark.parametrize("first", ["all", "main", "children"])
def test_all_are_stopped_and_the_parent_is_killed(
    lava_environment: WorkerEnvironment,
    temporary_folder: Path,
    worker_traces: SimpleNamespace,
    nothing_left: SimpleNamespace,
    first: str,
) -> None:
    """Nothing is left as soon as they go on, whichever goes on first."""
    path = {"PYTHONPATH": str(Path(__file__).parent)}
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], env={**os.environ, **path}, stderr=subprocess.DEVNULL)
    group = worker_traces.leader_of(temporary_folder)
    nothing_left.groups.append(group)
    nothing_left.prefixes.extend(worker_traces.prefixes(temporary_folder))
    os.killpg(group, signal.SIGSTOP)
    parent.kill()
    parent.wait()
    others = [number for number in members(group) if number != group]
    assert others
    if first == "children":
        for number in others:
            os.kill(number, signal.SIGCONT)
        time.sleep(1.0)
    os.kill(group, signal.SIGCONT)
    if first == "all":
        os.killpg(group, signal.SIGCONT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_parent_that_is_ended(
    lava_environment: WorkerEnvironment,
    temporary_folder: Path,
    worker_traces: SimpleNamespace,
    nothing_left: SimpleNamespace,
    number: signal.Signals,
) -> None:
    path = {"PYTHONPATH": str(Path(__file__).parent)}
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT],
        env={**os.environ, **path},
        stderr=subprocess.PIPE,
        # A suite that runs in a shell's background has inherited that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        nothing_left.groups.append(worker_traces.leader_of(temporary_folder))
        nothing_left.prefixes.extend(worker_traces.prefixes(temporary_folder))
        parent.send_signal(number)
        said = parent.communicate(timeout=30)[1].decode()
    finally:
        parent.kill()
    assert parent.returncode == -number
    assert ("KeyboardInterrupt" in said) == (number == signal.SIGINT)


def test_another_version_of_the_protocol(
    lava_environment: WorkerEnvironment, written_job: Callable[..., Job], nothing_left: SimpleNamespace
) -> None:
    job = written_job(small_network(), two_images())
    nothing_left.prefixes.append(job.segment_prefix)
    document = json.loads((job.folder / "job.json").read_text())
    (job.folder / "job.json").write_text(json.dumps({**document, "protocol": 99}))
    expected = f"follows version 99 of the protocol, and this worker version {PROTOCOL}: they come"
    with pytest.raises(TargetError, match=expected):
        supervise(lava_environment, job, _silent)


def test_a_job_that_cannot_be_read(
    lava_environment: WorkerEnvironment, written_job: Callable[..., Job], nothing_left: SimpleNamespace
) -> None:
    job = written_job(small_network(), two_images())
    nothing_left.prefixes.append(job.segment_prefix)
    (job.folder / "job.json").write_text("{")
    with pytest.raises(TargetError, match=r"The job in .* cannot be read: Expecting property name"):
        supervise(lava_environment, job, _silent)


def test_a_job_folder_that_is_gone(lava_environment: WorkerEnvironment, tmp_path: Path) -> None:
    job = Job(LAVA, tmp_path / "gone", "cosx_test_", 1, 30.0)
    with pytest.raises(TargetError, match=r"(?s)ended with exit code 2 before.*folder cannot be opened.*gone"):
        supervise(lava_environment, job, _silent)


def test_an_array_that_is_missing_at_compile_time(
    lava_environment: WorkerEnvironment, written_job: Callable[..., Job], nothing_left: SimpleNamespace
) -> None:
    job = written_job(small_network(), two_images(), backend="faithful")
    nothing_left.prefixes.append(job.segment_prefix)
    next(job.folder.glob("*_weight.npy")).unlink()
    with pytest.raises(TargetError, match=r"Node 'affine\d': its array 'weight' cannot be read"):
        supervise(lava_environment, job, _silent)


def test_progress_that_raises(
    lava_environment: WorkerEnvironment, written_job: Callable[..., Job], nothing_left: SimpleNamespace
) -> None:
    job = written_job(small_network(), two_images(), steps=MANY_STEPS)
    nothing_left.prefixes.append(job.segment_prefix)

    def progress(stage: str, done: int, total: int) -> None:
        raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="the caller's own"):
        supervise(lava_environment, job, progress)


def _environment(tmp_path: Path, program: str) -> WorkerEnvironment:
    python = tmp_path / "python"
    python.write_text(program)
    python.chmod(0o755)
    return WorkerEnvironment(LAVA, tmp_path, python, {"lava-nc": "0.10.0"})


def test_a_python_that_is_no_program(written_job: Callable[..., Job], tmp_path: Path) -> None:
    job = written_job(small_network(), two_images())
    with pytest.raises(UnavailableError, match=r"cannot be started: .*cos-export targets --install lava"):
        supervise(_environment(tmp_path, "\0"), job, _silent)


def test_a_python_that_fails(written_job: Callable[..., Job], tmp_path: Path) -> None:
    job = written_job(small_network(), two_images())
    with pytest.raises(UnavailableError, match=r"damaged: its Python ended with exit code 3: no lava here\. Make"):
        supervise(_environment(tmp_path, "#!/bin/sh\necho no lava here >&2\nexit 3\n"), job, _silent)


def test_a_worker_that_dies_after_it_has_begun(written_job: Callable[..., Job], tmp_path: Path) -> None:
    job = written_job(small_network(), two_images())
    program = "#!/bin/sh\necho '{\"done\": 1}'\necho out of luck >&2\nexit 3\n"
    with pytest.raises(TargetError, match=r"(?s)exit code 3 before it was done \(1 of 2.*last words:.*out of luck"):
        supervise(_environment(tmp_path, program), job, _silent)


@pytest.mark.parametrize("stream", ["1", "2"])
def test_a_worker_that_writes_without_an_end(written_job: Callable[..., Job], tmp_path: Path, stream: str) -> None:
    """It ends by its deadline, and this process does not hold what it wrote."""
    job = written_job(small_network(), two_images(), deadline=2.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    with pytest.raises(TargetError, match="not done within 2 s"):
        supervise(_environment(tmp_path, f"#!/bin/sh\nexec cat /dev/zero >&{stream}\n"), job, _silent)
    assert time.monotonic() - began < 15.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_what_would_move_a_terminal_is_not_printed(written_job: Callable[..., Job], tmp_path: Path) -> None:
    job = written_job(small_network(), two_images())
    said = r"\033[2J\033[31mred\033[0m \033]0;title\007\a\bover\rwritten\tthen\033Pstring\033\\ end \302\233 x"
    program = f"#!/bin/sh\necho '{{\"done\": 0}}'\nprintf '{said}' >&2\nexit 3\n"
    with pytest.raises(TargetError) as caught:
        supervise(_environment(tmp_path, program), job, _silent)
    words = str(caught.value).partition("last words:\n")[2]
    assert [line.strip() for line in words.splitlines()] == ["red over", "written    then end  x"]
    assert all(letter.isprintable() or letter == "\n" for letter in str(caught.value))


def test_a_missing_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COS_EXPORT_LAVA_ENV", str(tmp_path / "none"))
    with pytest.raises(UnavailableError, match=r"no environment at .*none\. Install it with"):
        run_network(small_network(), two_images(), 1)
    assert LAVA.program.is_dir()
