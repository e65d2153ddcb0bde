"""An update that is the same work each time, on other numbers: on a GPU it is recorded once and then replayed.

A recorded update (a CUDA graph) is launched as one, where the host would launch its hundreds of kernels one by one. It
reads its inputs from the same memory each time, and holds for inputs of one shape. Nothing is taken on trust: the first
update that could be replayed is computed both ways, and what replaying gives is used only where it is the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from cos_export.errors import Notice

__all__ = ["CudaGraphs", "Recorder", "RepeatedUpdate"]

Work = Callable[[], None]

WARM = 3
"""Updates before the one that is recorded, as PyTorch asks for: libraries set themselves up in the first ones."""

APART = 1e-3
"""How far a replayed update may be from the same one computed plainly, as a share of the norm of each tensor: sums may
round otherwise where a library chooses another kernel, and an input that was not read would be far beyond it."""


class Recorder(Protocol):
    """What records work to repeat it."""

    def aside(self, work: Work) -> None:
        """Does the work where it would be recorded."""

    def record(self, work: Work) -> Work:
        """Records the work without doing it, and returns what does it.

        Raises:
            RuntimeError: It cannot be recorded.
        """


class CudaGraphs:
    """CUDA graphs on a stream of their own.

    Args:
        device: A CUDA device.

    Source: "CUDA semantics", section "CUDA Graphs", of PyTorch's documentation.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def aside(self, work: Work) -> None:
        """Does the work on the stream that is recorded, in turn with the current one."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            work()
        current.wait_stream(self._stream)

    def record(self, work: Work) -> Work:
        """The work as a CUDA graph; see `Recorder.record`."""
        graph, generator = torch.cuda.CUDAGraph(), torch.cuda.get_rng_state(self._device)
        current = torch.cuda.current_stream(self._device)
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                work()
        except RuntimeError:
            # Where the end of a record fails, PyTorch leaves its stream the current one.
            torch.cuda.set_stream(current)
            torch.cuda.set_rng_state(generator, self._device)
            raise
        return graph.replay


class RepeatedUpdate:
    """Does the same work on other inputs, again and again: plainly, or recorded and replayed.

    With a recorder the first `WARM` updates are done plainly beside the current stream. The next one is recorded and
    done plainly, and the one after it replayed and, from the same state, done plainly: where both come to the same, all
    further ones are replayed. Where recording fails or they do not, the state is put back, a `Notice` says so, and all
    further updates are done plainly, so the result is the same.

    Args:
        work: Changes the tensors of `state` by its inputs, without reading a number on the host.
        state: All that the work changes and reads again, from the first update on.
        recorder: What records, or None to do all plainly.
    """

    def __init__(
        self, work: Callable[..., None], state: Callable[[], Sequence[Tensor]], recorder: Recorder | None = None
    ) -> None:
        self._work, self._state, self._recorder = work, state, recorder
        self._inputs: tuple[Tensor, ...] = ()
        self._replay: Work | None = None
        self._done = 0

    def __call__(self, *inputs: Tensor) -> None:
        """Does the work on these inputs, on the device; of other shapes than the first ones plainly."""
        recorder = self._recorder
        if recorder is None:
            self._work(*inputs)
            return
        if not self._inputs:
            self._inputs = tuple(torch.empty_like(given) for given in inputs)
        if any(held.shape != given.shape for held, given in zip(self._inputs, inputs, strict=True)):
            recorder.aside(lambda: self._work(*inputs))
            return
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given)
        self._done += 1
        if self._done <= WARM:
            recorder.aside(self._plainly)
        elif self._done == WARM + 1:
            self._record(recorder)
            recorder.aside(self._plainly)
        elif self._done == WARM + 2:
            self._compare(recorder)
        elif self._replay is not None:
            self._replay()

    def _plainly(self) -> None:
        self._work(*self._inputs)

    def _record(self, recorder: Recorder) -> None:
        before = [tensor.clone() for tensor in self._state()]
        try:
            self._replay = recorder.record(self._plainly)
        except RuntimeError as error:
            self._put(before)
            self._give_up((str(error).splitlines() or [type(error).__name__])[0])

    def _compare(self, recorder: Recorder) -> None:
        before, problem = [tensor.clone() for tensor in self._state()], None
        replayed = before
        try:
            if self._replay is not None:
                self._replay()
            replayed = [tensor.clone() for tensor in self._state()]
        except RuntimeError as error:
            problem = (str(error).splitlines() or [type(error).__name__])[0]
        self._put(before)
        recorder.aside(self._plainly)
        if problem is None and not _same(replayed, self._state()):
            problem = "replayed, it did not come to what it comes to otherwise"
        if problem is not None:
            self._give_up(problem)

    def _put(self, before: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for tensor, value in zip(self._state(), before, strict=True):
                tensor.copy_(value)

    def _give_up(self, reason: str) -> None:
        self._recorder = self._replay = None
        warnings.warn(
            f"An update could not be recorded to be replayed: {reason}. All updates are launched one by one, which "
            "takes longer; the result is the same.",
            Notice,
            stacklevel=2,
        )


def _same(replayed: Sequence[Tensor], plain: Sequence[Tensor]) -> bool:
    """Whether no tensor of the one is further from that of the other than rounding explains."""
    return all(
        float((one - other).double().norm()) <= APART * float(other.double().norm())
        for one, other in zip(replayed, plain, strict=True)
    )
