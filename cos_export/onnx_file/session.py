"""A run of an ONNX Runtime session that ends: in time, and at Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime

from cos_export.network import SpikingNetwork
from cos_export.network.workload import multiply_accumulates

__all__ = ["plenty_of_seconds", "run_session"]

_STARTING_SECONDS = 60.0
_WORK_PER_SECOND = 1e8
"""Multiplications, at less than a tenth of what one busy core does."""

_LAST_SECONDS = 10.0
"""That a run which has been told to end may take for the operation that it is at."""


def plenty_of_seconds(network: SpikingNetwork, samples: int, steps: int) -> float:
    """Seconds in which even a busy machine has run a graph of `steps` steps on `samples` samples."""
    return _STARTING_SECONDS + multiply_accumulates(network) * samples * steps / _WORK_PER_SECOND


def run_session(
    session: onnxruntime.InferenceSession, outputs: Sequence[str], feeds: Mapping[str, Any], seconds: float
) -> list[Any]:
    """The outputs of a graph, which may hold a loop without an end.

    ONNX Runtime notices no signal while it computes. So it computes in a thread, and is told to end by this one.

    Args:
        session: The graph.
        outputs: Which outputs.
        feeds: Arrays by input.
        seconds: The time it may take.

    Raises:
        TimeoutError: It took longer.
        Exception: Whatever ONNX Runtime says; its errors have no other common base.
    """
    options = onnxruntime.RunOptions()
    results: list[list[Any]] = []
    failed: list[Exception] = []
    ended = threading.Event()

    def compute() -> None:
        try:
            results.append(session.run(list(outputs), dict(feeds), options))
        except Exception as error:  # noqa: BLE001 - it is raised below, in the thread that asked
            failed.append(error)
        finally:
            ended.set()

    # A daemon: an operation that cannot be ended must not keep the program from ending.
    threading.Thread(target=compute, name="ONNX Runtime", daemon=True).start()
    try:
        in_time = ended.wait(seconds)
    except BaseException:
        _end(options, ended)
        raise
    if not in_time:
        _end(options, ended)
        raise TimeoutError(f"it was not done within {seconds:g} s")
    if failed:
        raise failed[0]
    return results[0]


def _end(options: onnxruntime.RunOptions, ended: threading.Event) -> None:
    options.terminate = True
    ended.wait(_LAST_SECONDS)
