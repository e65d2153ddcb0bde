"""Starts the worker, listens to it, and leaves nothing of it behind, however the run ends.

The worker and all that it starts form a process group of their own. When the run is over (done, failed,
past its deadline or interrupted) the group is ended, and the job's shared memory, known by its prefix, is
removed. Should this process be killed, the worker notices by itself: see `worker/guardian.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from cos_export.errors import TargetError, UnavailableError
from cos_export.progress import Progress
from targets.lava.environment import INSTALL_COMMAND, LavaEnvironment
from targets.lava.job import Job, read_result
from targets.lava.process_group import end_group, has_ended, remove_segments, uninterrupted

__all__ = ["WORKER", "supervise"]

WORKER = Path(__file__).parent / "worker"
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_STAGE = "running in Lava"
_POLL = 0.1
_KEPT_BYTES = 8192
_QUOTED_LINES = 30


def supervise(environment: LavaEnvironment, job: Job, progress: Progress) -> None:
    """Runs a job to its end.

    Args:
        environment: Whose Python runs the worker.
        job: What has been written.
        progress: Told of the samples done.

    Raises:
        UnavailableError: The worker cannot be started.
        TargetError: It failed, died, or was not done by the deadline.
    """
    limit = time.monotonic() + job.deadline
    # Lava has a process for each layer; threads within them would only fight for the cores.
    variables = {**os.environ, **dict.fromkeys(_ONE_THREAD, "1")}
    try:
        process = subprocess.Popen(
            [str(environment.python), "-I", "-B", str(WORKER), str(job.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=variables,
            start_new_session=True,
        )
    except OSError as error:
        raise UnavailableError(
            f"The Python of Lava's environment, {environment.python}, cannot be started: {error}. Remove "
            f'{environment.path} and install it again with "{INSTALL_COMMAND}".'
        ) from error
    finished = False
    ears = _Ears(process, job.samples, progress)
    try:
        progress(_STAGE, 0, job.samples)
        finished = ears.listen(limit)
    finally:
        with uninterrupted():
            end_group(process, at_once=not finished)
            remove_segments(job.segment_prefix)
            ears.close()
    if not finished:
        raise TargetError(
            f"Lava was not done within {job.deadline:g} s: {ears.done} of {job.samples} samples were. "
            "Allow it more with deadline= (--deadline on the command line), or give it fewer samples or steps."
        )
    _judge(process.returncode, job, ears)


def _judge(code: int, job: Job, ears: _Ears) -> None:
    """Raises what the worker's end means, unless it means that the job is done."""
    result = read_result(job.folder)
    if result is not None and result["status"] == "done" and code == 0:
        return
    if result is not None and result["status"] == "failed":
        trace = str(result["traceback"]).strip()
        quoted = f"\nThe traceback of the Lava process ends:\n{_last_lines(trace)}" if trace else ""
        raise TargetError(f"Lava failed while it ran the network. {result['message']}{quoted}")
    ending = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    words = _last_lines(ears.errors.decode(errors="replace").strip())
    said = f" Its last words:\n{words}" if words else " It said nothing."
    raise TargetError(
        f"The Lava worker {ending} before it was done ({ears.done} of {job.samples} samples). If it was killed for "
        f"its memory, choose a smaller batch_size=.{said}"
    )


def _last_lines(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines()[-_QUOTED_LINES:])


class _Ears:
    """Reads both outputs of the worker as they come, so that it never waits for a full pipe."""

    def __init__(self, process: subprocess.Popen[bytes], samples: int, progress: Progress) -> None:
        self._process, self._samples, self._progress = process, samples, progress
        self.done, self.errors, self._line = 0, b"", b""
        self._selector = selectors.DefaultSelector()
        ears: dict[object, Callable[[bytes], None]] = {process.stdout: self._hear, process.stderr: self._keep}
        for stream, ear in ears.items():
            os.set_blocking(stream.fileno(), False)  # type: ignore[attr-defined]
            self._selector.register(stream, selectors.EVENT_READ, ear)  # type: ignore[arg-type]

    def listen(self, limit: float) -> bool:
        """Listens until the worker ends, and returns whether it did so before `limit`."""
        while not has_ended(self._process):
            if time.monotonic() >= limit:
                return False
            self._take(_POLL)
        self._take(0.0)
        return True

    def close(self) -> None:
        """Closes the pipes, after what is left in them has been read."""
        self._take(0.0, report=False)
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _take(self, seconds: float, *, report: bool = True) -> None:
        if not self._selector.get_map():
            time.sleep(seconds)
            return
        for key, _ in self._selector.select(seconds):
            heard = b""
            while piece := _read(key.fd):
                heard += piece
            if report or key.data == self._keep:
                key.data(heard)
            if not heard:
                self._selector.unregister(key.fileobj)

    def _keep(self, piece: bytes) -> None:
        self.errors = (self.errors + piece)[-_KEPT_BYTES:]

    def _hear(self, piece: bytes) -> None:
        *lines, self._line = (self._line + piece).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # Not a line of the worker's own.
                self.done = int(json.loads(line)["done"])
        if lines:
            self._progress(_STAGE, self.done, self._samples)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return b""
