"""The target `c`: a bundle's network as C code, compiled in a temporary folder and run as a program."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cos_export.bundle import Bundle
from cos_export.bundle.target import Availability
from cos_export.c_code import CSource, c_source, quantised_images
from cos_export.datasets import in_memory
from cos_export.drafts import temporary_folder
from cos_export.errors import InputError, TargetError, UnavailableError
from cos_export.network import FloatArray, SampleStates, SpikingNetwork, are_frames, check_inputs, check_steps
from cos_export.network.workload import multiply_accumulates
from cos_export.progress import Progress, silent
from cos_export.simulation import mean_readout
from cos_export.simulation.layerwise import spike_train
from cos_export.simulation.trace import Recording, Trace
from cos_export.storage import temporary_room
from targets.c.compiler import find
from targets.c.process import finished
from targets.deadline import check_deadline, seconds_left

__all__ = ["CTarget"]

_NAME = "network"
"""What `harness.c` calls the network."""

_HARNESS = Path(__file__).with_name("harness.c")
_STARTING_SECONDS, _PARAMETERS_PER_SECOND, _WORK_PER_SECOND = 120.0, 2e4, 2e6
"""For a compiler, and for the program, at about a twentieth of what was measured on two busy cores."""


@dataclass(frozen=True)
class CTarget:
    """Runs networks of integers as C99.

    Attributes:
        deadline: Seconds that compiler and program may take together; by default plenty for what there is to do.
        options: For the compiler, beside those that the code compiles under without a warning.
    """

    deadline: float | None = None
    options: tuple[str, ...] = ("-O2",)

    def __post_init__(self) -> None:
        check_deadline(self.deadline)

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return "c"

    def available(self) -> Availability:
        """Whether a C compiler is installed."""
        try:
            return Availability(ready=True, version=find().version)
        except UnavailableError as error:
            return Availability(ready=False, reason=str(error))

    def run(
        self,
        bundle: Bundle,
        images: FloatArray,
        steps: int,
        *,
        states: SampleStates | None = None,
        record_spikes: bool = True,
        progress: Progress = silent,
    ) -> Trace:
        """Runs a batch: see `cos_export.bundle.target.Target.run`."""
        if states is not None:
            raise InputError(
                f"The C code starts every sample from the same potentials, and {bundle.network.method!r} sets them for "
                "each. Take a bundle of a static method."
            )
        return self.run_network(bundle.network, images, steps, record_spikes=record_spikes, progress=progress)

    def run_network(
        self,
        network: SpikingNetwork,
        images: FloatArray,
        steps: int | None = None,
        *,
        record_spikes: bool = True,
        progress: Progress = silent,
    ) -> Trace:
        """Runs a network of integers; arguments and result as `Target.run` says.

        Raises:
            UnavailableError: No compiler is installed.
            InputError: The network is of float32, or images or steps do not fit it.
            NetworkError: Something of the network has no place in the code.
            TargetError: The compiler or the program failed, or was not done by the deadline.
            StorageError: The temporary folder cannot hold the code and the images.
        """
        steps = check_steps(steps, network)
        array = check_inputs(network, images, steps)
        if are_frames(network, array):
            network = replace(network, input_encoding="frames")
        compiler, source = find(), c_source(network, steps, _NAME)
        allowed = self.deadline or _plenty(network, len(array), steps, source)
        left = seconds_left(allowed)
        with temporary_room("the C code and what it is run on"), temporary_folder("c") as folder:
            (folder / f"{_NAME}.h").write_text(source.header, "ascii")
            code, program = folder / f"{_NAME}.c", folder / "program"
            code.write_text(source.code, "ascii")
            trace = ("-DNETWORK_TRACE",) if record_spikes else ()
            progress("compiling", 0, 1)
            options = [*self.options, *trace, f"-I{folder}"]
            compiler.compile([code, _HARNESS], program, options, seconds=left(), allowed=allowed)
            progress("compiling", 1, 1)
            results = folder / "results"
            results.touch()
            quantised_images(network, in_memory(array)).tofile(folder / "images")
            record = _record(source, record_spikes)

            def observe() -> None:
                progress("running C", min(results.stat().st_size // record.itemsize, len(array)), len(array))

            command = [str(program), str(folder / "images"), str(results)]
            done = finished(command, "The C program", left(), allowed=allowed, observe=observe)
            if done.returncode != 0:
                raise TargetError(f"The C program ended with {done.returncode}: {done.said.strip()[:2000]}")
            return _trace(source, results, record, len(array))


def _plenty(network: SpikingNetwork, samples: int, steps: int, source: CSource) -> float:
    """Seconds within which even a busy machine should be done."""
    work = multiply_accumulates(network) * samples * steps / _WORK_PER_SECOND
    return _STARTING_SECONDS + source.table_bytes / _PARAMETERS_PER_SECOND + work


def _record(source: CSource, record_spikes: bool) -> np.dtype[np.void]:
    """What the program writes of one image."""
    network, steps = source.network, source.steps
    window = network.schedule == "layerwise"
    fields: list[tuple[str, type[np.generic], tuple[int, int]]] = []
    for number, name in enumerate(network.layers if record_spikes else ()):
        storage = source.storages[name]
        fields.append((f"layer{number}", np.uint8, (1, storage.size) if window else (steps, storage.spike_bytes)))
    return np.dtype([*fields, ("sums", np.int32, (steps, int(np.prod(network.output_shape))))])


def _trace(source: CSource, results: Path, record: np.dtype[np.void], samples: int) -> Trace:
    """The run as every target returns it."""
    written = results.stat().st_size // record.itemsize
    if written != samples:
        raise TargetError(f"The C program wrote results of {written} samples in place of {samples}.")
    records: NDArray[np.void] = np.memmap(results, record, "r", shape=(samples,))
    network, steps = source.network, source.steps
    totals = np.moveaxis(records["sums"], 0, 1).astype(np.int64)
    each = torch.from_numpy(np.diff(totals, axis=0, prepend=0).astype(np.float32))
    logits = mean_readout(each, steps, network.quantisation).numpy()
    recording = Recording(network, samples, steps, spikes=len(records.dtype.names or ()) > 1)
    for field, name in zip([*(records.dtype.names or ())][:-1], network.layers, strict=False):
        storage, shape = source.storages[name], network.neurons[name].shape
        for block in recording.spikes.blocks(steps * math.prod(shape)):
            if network.schedule == "layerwise":
                counts = torch.from_numpy(storage.restored(records[field][block, 0], shape).astype(np.float32))
                spikes = spike_train(counts, steps).numpy().astype(np.bool_)
            else:
                spikes = storage.unpacked(np.moveaxis(records[field][block], 0, 1), shape)
            recording.spikes.add(name, spikes)
    recording.add(Trace(logits.reshape(steps, samples, *network.output_shape)))
    return recording.trace()
