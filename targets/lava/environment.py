"""Lava's own environment: what it holds, and where it is.

lava-nc 0.10.0 asks for Python 3.10 and installs a stray top-level package `tests`, so it does not live
beside this package. With a Python 3.10 the environment holds Lava as published; without one it holds the
running Python, and the worker makes Lava fit it.
"""

from __future__ import annotations

from pathlib import Path

from targets.workers import environment
from targets.workers.environment import WorkerEnvironment
from targets.workers.software import Package, Software

__all__ = ["LAVA", "LAVA_DL", "LAVA_NC", "find"]

LAVA_NC = Package("lava-nc", "0.10.0")
LAVA_DL = Package("lava-dl", "0.6.0", needed_by="the netx back end")

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

LAVA = Software(
    name="lava",
    title="Lava",
    folder="lava",
    variable="COS_EXPORT_LAVA_ENV",
    packages=(LAVA_NC,),
    optional=(LAVA_DL,),
    program=Path(__file__).parent / "worker",
    # Lava has a process for each layer; threads within them would only fight for the cores.
    variables=dict.fromkeys(_THREADS, "1"),
)


def find(*, netx: bool = False) -> WorkerEnvironment:
    """Lava's environment, judged by its files alone.

    Args:
        netx: Whether lava-dl must be there, too.

    Raises:
        UnavailableError: There is none, or it cannot be used; says what to do.
    """
    return environment.find(LAVA, also=[LAVA_DL.name] if netx else [])
