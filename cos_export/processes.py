"""Many processes on one piece of work: each takes its share of the samples, and sums are taken over all.

`torchrun` starts the processes and tells each its rank; without it there is one process and nothing is exchanged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import count

import torch
import torch.distributed as dist

# Before any group is joined: its functions take the group there is at their import as the default of an argument, which
# keeps that group and its threads alive to the end of the process. Adam imports it, among much else, at its first use.
import torch.distributed.nn.functional
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from cos_export.errors import UnavailableError

__all__ = ["highest", "is_main", "local_device", "process_count", "process_group", "rank", "summed"]

_GROUPS = count()
"""Numbers the groups that this process joins: the same in all processes, which join them in the same order."""

_PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others before it gives them up for dead."""


def process_count() -> int:
    """The number of processes that work together: 1 outside of `process_group`."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """This process's number among them, from 0."""
    return dist.get_rank() if _joined() else 0


def is_main() -> bool:
    """Whether this process is the one that writes files and speaks to the user: so too before and after the group."""
    return rank() == 0 if _joined() else os.environ.get("RANK", "0") == "0"


def summed(tensors: Sequence[Tensor]) -> None:
    """Replaces each tensor by its sum over all processes, in place. Every process must call it, with equal shapes.

    All are sent as one: on a slow wire the number of messages counts, and not their size.
    """
    if not _joined() or not tensors:
        return
    kinds = {tensor.dtype for tensor in tensors}
    for kind in sorted(kinds, key=str):
        some = [tensor for tensor in tensors if tensor.dtype == kind]
        flat = torch.cat([tensor.detach().flatten() for tensor in some])
        dist.all_reduce(flat)
        for tensor, part in zip(some, torch.split(flat, [t.numel() for t in some]), strict=True):
            tensor.detach().copy_(part.reshape(tensor.shape))


def local_device(device: torch.device) -> torch.device:
    """The device of this process: of several processes on a machine with CUDA, each takes a GPU of its own.

    Raises:
        UnavailableError: There are more processes on this machine than GPUs.
    """
    if device.type != "cuda" or int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return device
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= torch.cuda.device_count():
        raise UnavailableError(
            f"This is process {number + 1} of this machine, and it has {torch.cuda.device_count()} GPUs. Start as many "
            "processes as there are GPUs (torchrun --nproc-per-node), or take --device cpu."
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def highest(tensor: Tensor) -> None:
    """Replaces each number by the highest of all processes, in place. Every process must call it, with equal shapes."""
    if _joined():
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)


@contextmanager
def process_group(device: torch.device, patience: timedelta = _PATIENCE) -> Iterator[None]:
    """Joins the processes that `torchrun` has started, and leaves them at the end; nothing without `torchrun`.

    Raises:
        UnavailableError: The others did not come in time.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1 or _joined():
        yield
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        store, number, processes = next(rendezvous("env://", timeout=patience))
        # Under a name of its own. A process that is quick to join a second group would find the addresses of the
        # first one, which another process has left already, and wait for it for ever.
        own = dist.PrefixStore(f"cos-export/{next(_GROUPS)}", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=own, rank=number, world_size=processes, timeout=patience)
    except (RuntimeError, ValueError) as error:
        raise UnavailableError(
            f"The {os.environ['WORLD_SIZE']} processes could not find each other ({backend}): {error}"
        ) from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()
