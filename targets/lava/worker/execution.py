"""Runs a Lava network to its end or to a clear error, and never waits for ever.

Lava's own `run` waits without limit for processes that may be dead, so a thread looks after them and
reports the first that fails, with its traceback, whatever the main thread is waiting for.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from protocol import fail

if TYPE_CHECKING:
    import numpy as np
    from lava.magma.core.process.process import AbstractProcess
    from lava.magma.core.run_configs import RunConfig

__all__ = ["Monitor", "run_network"]

_INTERVAL = 0.05


class Monitor(threading.Thread):
    """Looks after the processes of a network, and reports how far the run has come.

    Args:
        network: Any process of it.
        counter: Its first element is the number of samples done, written by the network.
        report: Called with that number when it has changed.
    """

    def __init__(self, network: AbstractProcess, counter: np.ndarray, report: Callable[[int], None]) -> None:
        super().__init__(name="monitor", daemon=True)
        self._network, self._counter, self._report = network, counter, report
        self._finished = threading.Event()
        self._done = 0

    def run(self) -> None:
        """Watches until `finish`."""
        while not self._finished.wait(_INTERVAL):
            self._check()
            self._count()

    def finish(self) -> None:
        """Stops watching: from here on processes may end."""
        self._finished.set()
        self.join()
        self._count()

    def _count(self) -> None:
        if int(self._counter[0]) != self._done:
            self._done = int(self._counter[0])
            self._report(self._done)

    def _check(self) -> None:
        for actor in list(self._actors()):
            try:
                error = actor.exception
            except Exception as unreadable:  # noqa: BLE001 - it comes out of a pickle, and may be of any type
                fail(f"A process of the network failed, and its error cannot be read: {unreadable}")
            if error:
                fail(error[0], str(error[1]))
            if not actor.is_alive():
                if self._finished.is_set():
                    return
                fail(f"A process of the network ended before the run did: {_ending(actor.exitcode)}.")

    def _actors(self) -> list[Any]:
        infrastructure = getattr(self._network.runtime, "_messaging_infrastructure", None)
        return [] if infrastructure is None else infrastructure.actors


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def run_network(network: AbstractProcess, steps: int, monitor: Monitor, config: RunConfig) -> None:
    """Compiles the network, runs it for `steps` of Lava's steps and ends its processes.

    Results must have been written by the network's own processes when this returns.

    Raises:
        Exception: Lava could not compile or start the network.
    """
    from lava.magma.core.run_conditions import RunSteps

    monitor.start()
    # Two slots for each channel, not 64: one step's messages are all that is ever under way.
    network.create_runtime(run_cfg=config, compile_config={"pypy_channel_size": 2})
    network.run(condition=RunSteps(num_steps=steps))
    monitor.finish()
    _end(network.runtime)


def _end(runtime: Any) -> None:
    """Ends the processes by force: they have written what they had to, and none is waited for in turn."""
    infrastructure = runtime._messaging_infrastructure
    for actor in infrastructure.actors:
        actor.terminate()
    for actor in infrastructure.actors:
        actor.join()
    infrastructure.smm.shutdown()
    # Lava would stop the runtime once more when it is garbage, and wait for what has ended.
    runtime._is_started = runtime._is_running = False
