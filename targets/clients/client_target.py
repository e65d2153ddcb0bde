"""The targets `sinabs`, `snntorch`, `norse`, `spikingjelly`: model.nir in `cos_export.clients`, in another process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cos_export.bundle import Bundle
from cos_export.bundle.target import Availability
from cos_export.datasets import in_memory
from cos_export.errors import InputError
from cos_export.network import FloatArray, SampleStates, SpikingNetwork, check_inputs, check_steps
from cos_export.network.workload import multiply_accumulates
from cos_export.progress import Progress, silent
from cos_export.simulation.trace import Trace
from cos_export.whole_number import whole_number
from targets.clients.environment import CLIENTS_SOFTWARE
from targets.deadline import check_deadline
from targets.workers.environment import availability, find
from targets.workers.job import Job, job_folder, write_job_file
from targets.workers.results import read_trace
from targets.workers.software import Software
from targets.workers.supervisor import supervise

__all__ = ["ClientTarget"]

_STARTING_SECONDS = 120.0
_WORK_PER_SECOND = 5e7
"""Multiplications, at about a twentieth of what two busy cores do."""


@dataclass(frozen=True)
class ClientTarget:
    """Runs a bundle's NIR file on the neurons of a client.

    Attributes:
        client: "sinabs", "snntorch", "norse" or "spikingjelly".
        deadline: Seconds that a run may take; by default plenty for what there is to compute.
        batch_size: Samples computed at once.
    """

    client: str
    deadline: float | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.client not in CLIENTS_SOFTWARE:
            raise InputError(f"client must be one of {', '.join(CLIENTS_SOFTWARE)}, and is {self.client!r}.")
        check_deadline(self.deadline)
        whole_number("batch_size", self.batch_size, 1)

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return self.client

    def available(self) -> Availability:
        """Whether the client is installed; nothing is run to find out."""
        return availability(lambda: find(self._software), self._software.title)

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
        """Runs a batch: see `cos_export.bundle.target.Target.run`.

        Raises:
            UnavailableError: The client is not installed, or its Python does not start.
            InputError: The images or steps do not fit the network.
            NetworkError: The client cannot express the network; the message names the layer.
            TargetError: It failed, died, or was not done by the deadline.
        """
        network = bundle.network
        steps = check_steps(steps, network)
        array = in_memory(check_inputs(network, images, steps))
        environment = find(self._software)
        with job_folder(self._software) as folder:
            job = self._write(folder, bundle, array, steps, states, record_spikes)
            supervise(environment, job, progress)
            return read_trace(job, network, steps, record_spikes=record_spikes, states=states)

    @property
    def _software(self) -> Software:
        return CLIENTS_SOFTWARE[self.client]

    def _write(
        self,
        folder: Path,
        bundle: Bundle,
        images: FloatArray,
        steps: int,
        states: SampleStates | None,
        record_spikes: bool,
    ) -> Job:
        network = bundle.network
        np.save(folder / "images.npy", images, allow_pickle=False)
        places = {name: place for place, name in enumerate(network.order) if name in network.neurons}
        given: dict[str, dict[str, str]] = {"v_init": {}, "silent": {}}
        if states is not None:
            for kind, arrays in (("v_init", states.v_init), ("silent", states.silent)):
                for name, values in arrays.items():
                    given[kind][name] = f"{kind}_{places[name]}.npy"
                    np.save(folder / given[kind][name], np.asarray(values), allow_pickle=False)
        document = {
            "client": self.client,
            "model": str(bundle.nir_path.absolute()),
            "steps": steps,
            "batch": self.batch_size,
            "classes": list(network.output_shape),
            "spikes": {name: f"spikes_{place}.npy" for name, place in places.items()} if record_spikes else {},
            "states": given,
        }
        deadline = self.deadline or _deadline(network, len(images), steps)
        return write_job_file(folder, self._software, document, samples=len(images), deadline=deadline)


def _deadline(network: SpikingNetwork, samples: int, steps: int) -> float:
    """Seconds within which even a busy machine should be done."""
    return _STARTING_SECONDS + multiply_accumulates(network) * samples * steps / _WORK_PER_SECOND
