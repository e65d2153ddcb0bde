"""The protocol that every worker speaks: a job in a folder of JSON and plain arrays, and its result beside it.

The worker's current folder is the job's, so every file is named without a path. This module needs only the standard
library.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from traceback import format_exc
from typing import Any, NoReturn

from guardian import LAST_ACT

__all__ = ["PROTOCOL", "JobError", "enter", "fail", "read_document", "report_to", "serve", "write_result"]

PROTOCOL = 7
"""Of the job folder. A change that an older worker would misread takes the next number."""

_JOB_FILE, _RESULT_FILE = "job.json", "result.json"


class JobError(Exception):
    """The job cannot be read or run as it is written."""


def serve(run: Callable[[int], None]) -> NoReturn:
    """Runs a job, and ends the process at once, without the exit handlers of the software.

    Args:
        run: Given the descriptor that progress is written to, does what the job says. What it raises is the job's
            result; its `trace` is told as where, if it has one.
    """
    progress = enter()
    try:
        run(progress)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must be told
        fail(error, getattr(error, "trace", format_exc()))
    LAST_ACT.acquire()
    os._exit(0)


def enter() -> int:
    """Goes to the job's folder, which the command line names, and keeps standard output to the progress alone.

    What a library prints goes to standard error instead.

    Returns:
        The descriptor that progress is written to.
    """
    progress = os.dup(1)
    os.dup2(2, 1)
    os.write(progress, b'{"done": 0}\n')
    try:
        os.chdir(sys.argv[1])
    except (OSError, IndexError) as error:
        sys.stderr.write(f"The job's folder cannot be opened: {error}\n")
        os._exit(2)
    return progress


def read_document() -> Mapping[str, Any]:
    """Reads job.json of the current folder.

    Raises:
        JobError: It is missing, is not JSON, or is of another version of the protocol.
    """
    try:
        document = json.loads(Path(_JOB_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise JobError(f"The job in {Path.cwd()} cannot be read: {error}") from error
    job: Mapping[str, Any] = document if isinstance(document, dict) else {}
    version = job.get("protocol")
    if version != PROTOCOL:
        raise JobError(
            f"The job follows version {version} of the protocol, and this worker version {PROTOCOL}: "
            "they come from different installations of cos-export."
        )
    return job


def write_result(result: Mapping[str, Any]) -> None:
    """Writes result.json of the current folder, whole or not at all.

    Args:
        result: "status", which is "done" or "failed"; of a failure "message", "traceback", which may be empty, and
            "cause": "job" if the message says all, "network" if the software cannot express the network,
            "environment" if the software could not be imported, else "run".
    """
    partial = Path(_RESULT_FILE + ".partial")
    partial.write_text(json.dumps({"protocol": PROTOCOL, **result}), encoding="utf-8")
    partial.replace(_RESULT_FILE)


def fail(error: BaseException | str, traceback: str = "", *, importing: bool = False, cause: str = "run") -> NoReturn:
    """Writes the first failure as the job's result and ends the process at once.

    At once, since threads and exit handlers of the software may wait for processes that are dead. Its children are
    killed with this process, and its memory is freed by the resource tracker and the parent.

    Args:
        error: What went wrong.
        traceback: Where, in lines.
        importing: Whether the software was being imported, so that whatever it is lies in the environment.
        cause: As in `write_result`, unless the error itself says.
    """
    message = str(error)
    if isinstance(error, JobError):
        cause = "job"
    elif isinstance(error, BaseException) and cause != "network":
        message = f"{type(error).__name__}: {error}"
        if importing or isinstance(error, (ImportError, SyntaxError)):
            cause = "environment"
    if cause in ("job", "network"):
        traceback = ""
    LAST_ACT.acquire()
    try:
        write_result({"status": "failed", "cause": cause, "message": message, "traceback": traceback})
    except OSError as error:
        sys.stderr.write(f"{message}\nThis could not be written as the job's result: {error}\n")
    os._exit(1)


def report_to(descriptor: int) -> Callable[[int], None]:
    """A function that writes the number of samples done as a line of JSON."""

    def report(done: int) -> None:
        try:
            os.write(descriptor, json.dumps({"done": done}).encode() + b"\n")
        except OSError:  # Nobody listens any more. The guardian deals with that.
            return

    return report
