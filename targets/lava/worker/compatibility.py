"""Lets lava-nc 0.10.0, which is written for Python 3.10 and numpy 1, be imported on later ones.

Two things stand in the way. A dataclass of Lava's compiler has an instance of another dataclass as a
default, which Python 3.11 refuses unless that other one can be hashed. And Lava's reshaping ports name an
argument of `numpy.reshape` that numpy 2.4 no longer has.

Lava's convolution takes one function of SciPy's signal processing, which imports all of its statistics to find peaks:
half of what a worker imports, for what no network needs.

lava-dl's netx asks for PyTorch, of which it needs nothing to load a network of integrate-and-fire neurons.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

__all__ = ["import_convolution", "import_lava", "import_netx"]

_BLOCKED_MODULE, _UNHASHABLE = "lava.magma.compiler.var_model", "ByteEncoder"


@contextmanager
def _hashable_default() -> Iterator[None]:
    """While it lasts, the one dataclass that Lava uses as a default is made hashable."""
    ordinary: Callable[..., Any] = dataclasses.dataclass

    @functools.wraps(ordinary)
    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        def decorate(decorated: type) -> Any:
            blocked = (decorated.__module__, decorated.__name__) == (_BLOCKED_MODULE, _UNHASHABLE)
            return ordinary(decorated, **({**options, "unsafe_hash": True} if blocked else options))

        return decorate if cls is None else decorate(cls)

    dataclasses.dataclass = dataclass
    try:
        yield
    finally:
        dataclasses.dataclass = ordinary


def _positional_reshape() -> None:
    """Gives the shape to `numpy.reshape` by place, which every numpy takes."""
    import numpy as np
    from lava.magma.core.process.ports.ports import ReshapePort

    def reshaping(shape: tuple[int, ...]) -> Callable[[Any], Any]:
        return lambda values: np.reshape(values, shape)

    ReshapePort.get_transform_func_fwd = lambda self: reshaping(self.shape)
    ReshapePort.get_transform_func_bwd = lambda self: reshaping(self.old_shape)


def import_lava() -> None:
    """Imports Lava, made to fit the running Python and numpy. Call it before any other import of Lava."""
    if sys.version_info >= (3, 11) and _BLOCKED_MODULE not in sys.modules:
        with _hashable_default():
            importlib.import_module(_BLOCKED_MODULE)
    _positional_reshape()


_STATISTICS = "scipy.stats"


class _Unused(ModuleType):
    """Stands for a module while others take names from it that they use in nothing that is called here."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def import_convolution() -> None:
    """Imports Lava's convolution, without SciPy's statistics. `import_lava` must have been called before."""
    if _STATISTICS in sys.modules:
        importlib.import_module("lava.proc.conv.models")
        return
    sys.modules[_STATISTICS] = _Unused(_STATISTICS)
    try:
        importlib.import_module("lava.proc.conv.models")
    finally:
        del sys.modules[_STATISTICS]


_NEEDS_TORCH = (
    "lava.lib.dl.slayer",
    "lava.lib.dl.slayer.neuron",
    "lava.lib.dl.slayer.neuron.rf",
    "lava.lib.dl.netx.sequential_modules",
)
"""What netx imports and PyTorch is needed for: training, and resonate-and-fire neurons."""


def import_netx() -> Any:
    """The module `lava.lib.dl.netx.hdf5`, imported without PyTorch. Lava must have been imported before."""
    import lava.proc.lif.process as known

    for name in _NEEDS_TORCH:
        empty = ModuleType(name)
        # Lava's search for models asks every module that it meets for its file.
        empty.__file__ = known.__file__
        empty.__path__ = []
        sys.modules.setdefault(name, empty)
    neurons: Any = sys.modules["lava.lib.dl.slayer.neuron.rf"]
    neurons.neuron_params = None
    return importlib.import_module("lava.lib.dl.netx.hdf5")
