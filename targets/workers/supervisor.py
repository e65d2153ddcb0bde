"""Starts the worker, listens to it, and leaves nothing of it behind, however the run ends.

The worker and all that it starts form a process group of their own. When the run is over (done, failed,
past its deadline or interrupted) the group is ended, and the job's shared memory, known by its prefix, is
removed. Should this process be killed, the worker notices by itself: see `worker/guardian.py`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import NoReturn

from cos_export.errors import NetworkError, TargetError
from cos_export.progress import Progress
from targets.workers.environment import WorkerEnvironment, damaged
from targets.workers.integrity import damaged_file
from targets.workers.job import Job
from targets.workers.output_reader import OutputReader, printable
from targets.workers.process_group import StoppedProcesses, end_group, has_ended, remove_segments, uninterrupted
from targets.workers.results import read_result

__all__ = ["supervise"]

_POLL = 0.1
_QUOTED_LINES = 30
_STOPPED_SECONDS = 10.0
"""After which a stopped process of the worker is taken to stay so."""


def supervise(environment: WorkerEnvironment, job: Job, progress: Progress) -> None:
    """Runs a job to its end.

    Args:
        environment: Whose Python runs the worker.
        job: What has been written.
        progress: Told of the samples done.

    Raises:
        UnavailableError: The worker cannot be started, or its environment is damaged.
        NetworkError: The software cannot express the network.
        TargetError: It failed, died, was stopped, or was not done by the deadline.
    """
    damage = damaged_file(environment.path, contents=False)
    if damage:  # A module that was cut short may still be one, and compute something else.
        raise damaged(job.software, environment.path, damage)
    limit = time.monotonic() + job.deadline
    try:
        process = subprocess.Popen(
            [str(environment.python), "-I", "-B", str(job.software.program), str(job.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **job.software.variables},
            start_new_session=True,
        )
    except OSError as error:
        raise damaged(job.software, environment.path, f"its Python cannot be started: {error}") from error
    finished = False
    output = OutputReader(process, f"running in {job.software.title}", job.samples, progress)
    try:
        output.begin()
        finished = _wait(process, job, output, limit)
    finally:
        with uninterrupted():
            end_group(process, at_once=not finished)
            remove_segments(job.segment_prefix)
            output.close()
    if not finished:
        raise TargetError(
            f"{job.software.title} was not done within {job.deadline:g} s: {output.done} of {job.samples} samples "
            "were. Allow it more with deadline= (--deadline on the command line), or give it fewer samples or steps."
        )
    _judge(process.returncode, environment, job, output)


def _wait(process: subprocess.Popen[bytes], job: Job, output: OutputReader, limit: float) -> bool:
    """Reads until the worker ends, and returns whether it did so before `limit`.

    Raises:
        TargetError: One of its processes has been stopped, so that the others wait for it.
    """
    stopped = StoppedProcesses(process.pid)
    while not has_ended(process):
        if time.monotonic() >= limit:
            return False
        output.read(_POLL)
        number, seconds = stopped.longest()
        if seconds >= _STOPPED_SECONDS:
            raise TargetError(
                f"Process {number} of the {job.software.title} worker has been stopped (SIGSTOP) for {seconds:.0f} s, "
                f"and all others wait for it: {output.done} samples were done. Run it again, and let its processes go "
                "on."
            )
    output.read(0.0)
    return True


def _judge(code: int, environment: WorkerEnvironment, job: Job, output: OutputReader) -> None:
    """Raises what the worker's end means, unless it means that the job is done."""
    result, title = read_result(job), job.software.title
    if result is not None and result.status == "done" and code == 0:
        return
    if result is not None and result.status == "failed":
        if result.cause == "network":
            raise NetworkError(printable(result.message))
        if result.cause == "job":
            raise TargetError(f"{title} failed while it ran the network. {printable(result.message)}")
        _check_undamaged(environment, result.message if result.cause == "environment" else "")
        trace = printable(result.traceback).strip()
        quoted = f"\nThe traceback of the {title} process ends:\n{_last_lines(trace)}" if trace else ""
        raise TargetError(f"{title} failed while it ran the network. {printable(result.message)}{quoted}")
    _check_undamaged(environment, "" if output.started or code < 0 else _end_of(output.words, code))
    _raise_ending(code, job, output)


def _check_undamaged(environment: WorkerEnvironment, complaint: str) -> None:
    """Says that the environment is damaged if that is why the worker failed.

    Args:
        environment: Of the worker.
        complaint: What it said, if it can have no other reason.
    """
    damage = damaged_file(environment.path) or printable(complaint)
    if damage:
        raise damaged(environment.software, environment.path, damage)


def _end_of(words: str, code: int) -> str:
    """Why a Python did not come as far as the worker, in a line."""
    return f"its Python ended with exit code {code}: {words.splitlines()[-1] if words else 'it said nothing'}"


def _raise_ending(code: int, job: Job, output: OutputReader) -> NoReturn:
    ending = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    words = _last_lines(output.words)
    said = f" Its last words:\n{words}" if words else " It said nothing."
    raise TargetError(
        f"The {job.software.title} worker {ending} before it was done ({output.done} of {job.samples} samples). If it "
        f"was killed for its memory, choose a smaller batch_size=.{said}"
    )


def _last_lines(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines()[-_QUOTED_LINES:])
