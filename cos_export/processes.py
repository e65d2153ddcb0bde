"""Many processes on one piece of work: each takes its share of the samples, and sums are taken over all.

`torchrun` starts the processes and tells each its rank; without it there is one process and nothing is exchanged.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import Any

import torch
import torch.distributed as dist

# Before any group is joined: its functions take the group there is at their import as the default of an argument, which
# keeps that group and its threads alive to the end of the process. Adam imports it, among much else, at its first use.
import torch.distributed.nn.functional
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from cos_export.errors import LostProcessError, NetworkError, UnavailableError
from cos_export.launcher import launched_processes, local_number, number_of_process

__all__ = [
    "differing",
    "failing_together",
    "first_failure",
    "gathered",
    "highest",
    "is_main",
    "local_device",
    "meeting_place",
    "process_count",
    "process_group",
    "rank",
    "same_everywhere",
    "share",
    "shared_rows",
    "summed",
]

_GROUPS = count()
"""Numbers the groups that this process joins: the same in all processes, which join them in the same order."""

_PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others to come before it gives them up."""

_WORK = timedelta(hours=1)
"""How long one waits for the others to do their shares. One that has died is noticed at once, and not by that."""

_FAILURE = "failure"
"""Under which key of its group's store a process says what it has found, before it leaves the group."""

_store: Any = None
"""Where the processes meet, once this one has come there."""

_group: tuple[torch.device, Any] | None = None
"""The device of the group that this process has joined, and what the group keeps in the store."""


def process_count() -> int:
    """The number of processes that work together: 1 outside of `process_group`."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """This process's number among them, from 0."""
    return dist.get_rank() if _joined() else 0


def is_main() -> bool:
    """Whether this process is the one that writes files and speaks to the user: so too before and after the group."""
    return rank() == 0 if _joined() else number_of_process() == 0


def share(samples: int, batch_size: int = 1) -> slice:
    """The samples that this process takes, in whole batches of which the first processes have one more.

    A batch holds the samples that it would hold if one process ran all, so that each is computed alike to the bit.
    There may be none where there are more processes than batches; the main one has some if there are any.
    """
    batches = -(-samples // batch_size)
    first, end = (-(-batches * number // process_count()) for number in (rank(), rank() + 1))
    return slice(min(first * batch_size, samples), min(end * batch_size, samples))


def summed(tensors: Sequence[Tensor]) -> None:
    """Replaces each tensor by its sum over all processes, in place. Every process must call it, with equal shapes.

    All are sent as one: on a slow wire the number of messages counts, and not their size.
    """
    if not _joined() or not tensors:
        return
    kinds = {(tensor.device, tensor.dtype) for tensor in tensors}
    for kind in sorted(kinds, key=str):
        some = [tensor for tensor in tensors if (tensor.device, tensor.dtype) == kind]
        flat = torch.cat([tensor.detach().flatten() for tensor in some])
        with _others():
            dist.all_reduce(flat)
        for tensor, part in zip(some, torch.split(flat, [t.numel() for t in some]), strict=True):
            tensor.detach().copy_(part.reshape(tensor.shape))


def highest(tensor: Tensor) -> None:
    """Replaces each number by the highest of all processes, in place. Every process must call it, with equal shapes."""
    if _joined():
        with _others():
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)


def gathered(part: Tensor, own: slice, samples: int) -> Tensor:
    """All samples, in every process, of which each has some along the first axis: bit for bit what it had.

    Args:
        part: (of this process, ...), in every process of the same type and further shape.
        own: From `share`.
        samples: How many there are in all.
    """
    whole = torch.zeros(samples, *part.shape[1:], dtype=part.dtype, device=part.device)
    whole[own] = part
    summed([whole])
    return whole


def shared_rows(compute: Callable[[slice], Tensor], samples: int, batch_size: int) -> Tensor:
    """What is computed of each sample, of which every process computes its share and gets all: (samples, ...).

    Args:
        compute: From samples to rows, (of these samples, ...); it takes them `batch_size` at a time.
        samples: How many there are.
        batch_size: As for `share`.
    """
    own = share(samples, batch_size)
    count = own.stop - own.start
    # One row says how long rows are where this process has none.
    rows = compute(own if count else slice(0, 1))[:count]
    return gathered(rows, own, samples) if process_count() > 1 else rows


def first_failure(message: str | None) -> str | None:
    """What the first process that failed says, in every process, or None. Every process must call it.

    Args:
        message: What went wrong here, or None.
    """
    said = (message or "").encode()
    lengths = torch.zeros(process_count(), dtype=torch.int64)
    lengths[rank()] = len(said)
    summed([lengths])
    if not bool(lengths.any()):
        return None
    first = int((lengths > 0).int().argmax())
    text = torch.zeros(int(lengths[first]), dtype=torch.uint8)
    if rank() == first:
        text = torch.frombuffer(bytearray(said), dtype=torch.uint8).clone()
    summed([text])
    return bytes(text.tolist()).decode()


@contextmanager
def failing_together() -> Iterator[None]:
    """What one process alone finds wrong with a network ends the block of all of them, with the same error.

    That process leaves the group in the middle of the block, which those notice that wait for it; then all join a new
    one and are in step again. Every process must enter it, and leaves it when all have done so.

    On GPUs of several processes those that wait in a sum on the GPU notice it only when NCCL does.

    Raises:
        NetworkError: In every process, if one raises it in its block; of several that one which was first.
        LostProcessError: One of them has ended.
    """
    if not _joined() or _group is None:
        yield
        return
    device, kept = _group
    try:
        yield
        summed([torch.zeros(1)])
        return
    except NetworkError as error:
        said = kept.compare_set(_FAILURE, "", str(error))
    except LostProcessError:
        if not kept.check([_FAILURE]):
            raise
        said = kept.get(_FAILURE)
    dist.destroy_process_group()
    _join(device, _PATIENCE)
    raise NetworkError(said.decode())


def differing(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of those that are not the same bytes in all processes. Every process must call it, with equal names."""
    names = sorted(tensors)
    digests = [_digest(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy()) for name in names]
    here = torch.tensor(digests, dtype=torch.int64)
    both = torch.cat([here, -here])
    highest(both)
    return [name for name, most, least in zip(names, *both.reshape(2, -1).tolist(), strict=True) if most != -least]


def same_everywhere(value: Any) -> bool:
    """Whether all processes have the same, told by its `repr`. Every process must call it."""
    told = torch.tensor([_digest(repr(value).encode())])
    return not differing({"value": told})


def _digest(data: Any) -> int:
    """62 bits of a hash, of which the negative is a number of 64 bits as well."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> 2


def local_device(device: torch.device) -> torch.device:
    """The device of this process: of several processes on a machine with CUDA, each takes a GPU of its own.

    Raises:
        UnavailableError: There are more processes on this machine than GPUs.
    """
    if device.type != "cuda" or launched_processes() <= 1:
        return device
    number = local_number()
    if number >= torch.cuda.device_count():
        raise UnavailableError(
            f"This is process {number + 1} of this machine, and it has {torch.cuda.device_count()} GPUs. Start as many "
            "processes as there are GPUs (torchrun --nproc-per-node), or take --device cpu."
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


@contextmanager
def process_group(device: torch.device, patience: timedelta = _PATIENCE) -> Iterator[None]:
    """Joins the processes that `torchrun` has started, and leaves them at the end; nothing without `torchrun`.

    Raises:
        UnavailableError: The others did not come in time.
        LostProcessError: One of them has ended in the middle of it.
    """
    if launched_processes() <= 1 or _joined():
        yield
        return
    hook = sys.excepthook
    _join(device, patience)
    try:
        yield
    finally:
        if _joined():
            dist.destroy_process_group()
        sys.excepthook = hook  # Each group puts the rank before every line once more.


def _join(device: torch.device, patience: timedelta) -> None:
    """Joins the next group; see `process_group`."""
    global _group
    # What is counted lies in the host's memory on a machine with GPUs, too.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        # Under a name of its own. A process that is quick to join a second group would find the addresses of the
        # first one, which another process has left already, and wait for it for ever.
        own = dist.PrefixStore(f"cos-export/{next(_GROUPS)}", meeting_place(patience))  # type: ignore[attr-defined]
        dist.init_process_group(
            backend, store=own, rank=number_of_process(), world_size=launched_processes(), timeout=_WORK
        )
    except (RuntimeError, ValueError) as error:
        raise UnavailableError(
            f"The {launched_processes()} processes could not find each other ({backend}): {error}"
        ) from error
    _group = (device, own)


def meeting_place(patience: timedelta = _PATIENCE) -> Any:
    """The store of keys and values that all processes see.

    Raises:
        RuntimeError: It was not there in time.
    """
    global _store
    if _store is None:
        _store, _, _ = next(rendezvous("env://", timeout=patience))
    return _store


@contextmanager
def _others() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        first = (str(error).splitlines() or [""])[0]
        raise LostProcessError(
            f"Process {rank() + 1} of {process_count()} has lost the others: one has ended or hangs ({first})."
        ) from error


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()
