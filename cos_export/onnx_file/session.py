"""ONNX Runtime sessions that open and run in time, and end at Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import onnx
import onnxruntime

from cos_export.network import SpikingNetwork
from cos_export.network.workload import multiply_accumulates

__all__ = ["ARRAYS_FOLDER", "constants_are_cheap", "open_session", "plenty_of_seconds", "run_session"]

_Result = TypeVar("_Result")

ARRAYS_FOLDER = "session.model_external_initializers_file_folder_path"
"""The option of a session that is opened from bytes: where the file is that holds arrays beside the graph."""

_CHEAP = frozenset(
    {
        *("Add", "Cast", "Constant", "Div", "Flatten", "Gather", "Identity", "Mul", "Not", "ReduceMax", "Reshape"),
        "Sub",
    }
)

_STARTING_SECONDS = 60.0
_WORK_PER_SECOND = 1e8
"""Multiplications, at less than a tenth of what one busy core does."""

_LAST_SECONDS = 10.0
"""That what has been told to end may take for the operation that it is at."""


def plenty_of_seconds(network: SpikingNetwork, samples: int, steps: int) -> float:
    """Seconds in which even a busy machine has run a graph of `steps` steps on `samples` samples."""
    return _STARTING_SECONDS + multiply_accumulates(network) * samples * steps / _WORK_PER_SECOND


def open_session(
    source: bytes | Path, options: onnxruntime.SessionOptions, providers: Sequence[Any], seconds: float, *, cheap: bool
) -> onnxruntime.InferenceSession:
    """A session of a graph, which may hold constants that take hours to compute.

    ONNX Runtime works constants out while it opens a graph, and cannot be told to end that, nor the passes that rewrite
    a long one. So it does both where constants are no more than the graphs of this project have, and leaves others to
    the run, which can be ended.

    Args:
        source: The graph: its bytes, or a file of our own, which is then not copied in memory.
        options: Of the session.
        providers: Execution providers, with their options or without.
        seconds: The time it may take.
        cheap: What `constants_are_cheap` says of it. It is asked before, for the model need not be held meanwhile.

    Raises:
        TimeoutError: It took longer.
        Exception: Whatever ONNX Runtime says; its errors have no other common base.
    """

    def stop() -> None:
        options.set_load_cancellation_flag(True)

    if not cheap:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    graph = source if isinstance(source, bytes) else str(source)
    return _in_time(lambda: onnxruntime.InferenceSession(graph, options, providers=providers), stop, seconds)


def constants_are_cheap(graph: onnx.GraphProto) -> bool:
    """Whether what no input changes is computed by operations that take a pass over their numbers."""
    given = {entry.name for entry in graph.initializer}
    varying = {entry.name for entry in graph.input} - given
    for node in graph.node:
        if varying.intersection(node.input):
            varying.update(node.output)
        elif node.op_type not in _CHEAP:
            return False
    return True


def run_session(
    session: onnxruntime.InferenceSession, outputs: Sequence[str], feeds: Mapping[str, Any], seconds: float
) -> list[Any]:
    """The outputs of a graph, which may hold a loop without an end.

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

    def stop() -> None:
        options.terminate = True

    return _in_time(lambda: session.run(list(outputs), dict(feeds), options), stop, seconds)


def _in_time(compute: Callable[[], _Result], stop: Callable[[], None], seconds: float) -> _Result:
    """What `compute` returns. ONNX Runtime notices no signal, so it computes in a thread, and this one tells it to end.

    Args:
        compute: Returns or raises.
        stop: Tells it to end, which it does when it next looks.
        seconds: The time it may take.
    """
    results: list[_Result] = []
    failed: list[Exception] = []
    ended = threading.Event()

    def work() -> None:
        try:
            results.append(compute())
        except Exception as error:  # noqa: BLE001 - it is raised below, in the thread that asked
            failed.append(error)
        finally:
            ended.set()

    # A daemon: an operation that cannot be ended must not keep the program from ending.
    thread = threading.Thread(target=work, name="ONNX Runtime", daemon=True)
    thread.start()
    try:
        in_time = ended.wait(seconds)
    except BaseException:
        stop()
        thread.join(_LAST_SECONDS)
        raise
    if not in_time:
        stop()
        thread.join(_LAST_SECONDS)
        raise TimeoutError(f"it was not done within {seconds:g} s")
    if failed:
        raise failed[0]
    return results[0]
