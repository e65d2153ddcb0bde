"""The static calibration of cos-export: a start from means, then what a fixed graph can hold is tuned by gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, get_args

import torch
from torch import Tensor

from calibration.data import CalibrationData
from calibration.methods.ftbc import FTBC
from calibration.methods.mean_matching import MeanMatching
from calibration.methods.method import CalibrationRun, NetworkReference, StaticMethod, option
from calibration.tuning.flat import FlatParameters
from calibration.tuning.parameters import Tuned, Tuning
from calibration.tuning.repeated_update import CudaGraphs, Recorder, RepeatedUpdate
from calibration.tuning.surrogate import check_compiler
from calibration.tuning.teacher import teacher_logits, teacher_table
from calibration.tuning.update import TuningUpdate, summed_divergence
from calibration.tuning.warm_start import warm_start
from cos_export.bounds import LARGEST_SEED, MOST_BATCH, MOST_ROUNDS, MOST_SHIFT
from cos_export.device import mixed_precision, mixed_precision_type
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork
from cos_export.network.schedule import summed_steps
from cos_export.processes import process_count, summed
from cos_export.progress import Progress
from cos_export.simulation.program import Program

__all__ = ["Static"]

STAGE = "tuning"

STARTED_ON = 1000
"""Images at most that the mean matching before looks at: it goes through all of them in every round."""

AVERAGED = 0.99
"""How much of the running average of the parameters an update leaves."""

HELD_OUT = 2000
"""Images at most that nothing is tuned on, and that say whether the tuning has helped."""


@dataclass(frozen=True)
class Static(StaticMethod):
    """Static calibration by gradient: the same parameters for all inputs, and no extra step at inference.

    Starts from mean matching, or from FTBC if the bias of each step is tuned under the synchronous schedule, and
    minimises, without labels,

        KL( softmax(logits of the limit) || softmax(mean readout of T steps) )

    where the limit is the network as it is given, with clip(z / theta, 0, 1) in place of the neurons, which they tend
    to as T grows; for a QCFS network that is its activation before the rounding to L levels. Adam does it with a cosine
    schedule, and what is returned is the running average of the parameters. What is tuned is described at
    `calibration.tuning.parameters.Tuning`: "potential" (of each neuron), "threshold" (of each channel), "bias" (of each
    channel and step), "weight" (of each synapse, as the advanced pipeline of Li et al., ICML 2021, calibrates weights;
    the limit is that of the weights before). What a spike carries on stays what it was, or is part of the weights.

    The derivative of a spike is the triangle max(0, 1 - |m / theta - 1|). Since that is not the true one, and since the
    images are finitely many, the last fifth of them (2,000 at most) is held out: the tuned network is kept if the
    divergence on those is smaller than it was at the start, and the start if not.
    """

    tune: tuple[Tuned, ...] = option(("potential",), "What is tuned, with commas: potential, threshold, bias, weight.")
    updates: int = option(300, "Gradient steps.", minimum=1, maximum=MOST_ROUNDS)
    samples: int = option(64, "Images in each gradient step.", flag="batch", minimum=1, maximum=MOST_BATCH)
    learning_rate: float = option(
        0.004,
        "Of Adam, for a potential at T = 1 in units of theta; other rates are in proportion.",
        above=0,
    )
    flip: bool = option(False, "Mirror half of the images of each update left to right.")
    shift: int = option(0, "Move the images of each update by up to so many pixels.", minimum=0, maximum=MOST_SHIFT)
    # As in data distillation (Radosavovic et al., CVPR 2018); it costs one more run of the limit.
    both_sides: bool = option(False, "Take as teacher the mean of the limit over an image and its mirror image.")
    compiled: bool = option(
        False, "Fuse what is computed by torch.compile: 1.4 to 1.6 times as fast after a slower start.", flag="compile"
    )
    precision: str = option(
        "mixed",
        "Of the convolutions of an update: mixed is bfloat16 where the device has instructions for it.",
        choices=("float32", "mixed"),
    )
    rounds: int = option(
        10, "Of the mean matching before; FTBC takes three batches for each.", minimum=1, maximum=MOST_ROUNDS
    )
    start_from: SpikingNetwork | NetworkReference | None = option(
        None, "What to start from: a bundle or .nir of the same network, calibrated before for any T."
    )
    seed: int = option(0, "Of the order of the calibration images.", minimum=0, maximum=LARGEST_SEED)
    name: ClassVar[str] = "static"
    needs_data: ClassVar[bool] = True
    depends_on_steps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tune or len(set(self.tune)) < len(self.tune):
            raise InputError(f"What is tuned must be some of {', '.join(get_args(Tuned))}, each once, not {self.tune}.")

    @property
    def changes_weights(self) -> bool:
        """Whether weights are tuned."""
        return "weight" in self.tune

    def calibrate(self, network: SpikingNetwork, run: CalibrationRun) -> SpikingNetwork:
        """Sets what is tuned; see `StaticMethod.calibrate`.

        Raises:
            InputError: A layer is reset to a value or has silent neurons: the gradient is that of the plain neuron with
                the soft reset. Or weights of a network of integers are to be tuned, or inputs that are not images
                be mirrored, or `start_from` is another network.
        """
        self._check_network(network)
        if isinstance(self.start_from, NetworkReference):
            raise InputError("start_from is known by its fingerprint alone: give the network itself to calibrate.")
        steps, device, progress, checkpoint = run.steps, run.device, run.progress, run.checkpoint
        if self.compiled and network.schedule == "layerwise":
            raise InputError("compile fuses the steps of a neuron, and a layer-wise neuron has none: leave it out.")
        if self.compiled:
            check_compiler(device)
        fitted, held_out = _parts(run.data)
        teacher = Program(network, device)
        done, kept = checkpoint.load(STAGE) or (0, {})
        if self.start_from is not None:
            network = warm_start(self.start_from, network, steps)
            self._check_network(network)
        elif kept:
            network = _restarted(network, _part(kept, "start/"))
        else:
            network = self._start(network, replace(run, data=fitted))
        program = Program(network, device, window=summed_steps(network.schedule, steps))
        tuning = Tuning(program, self.tune, steps, compiled=self.compiled)
        flat = FlatParameters(tuning.parameters, self.learning_rate)
        flat.load(kept)
        batches = fitted.shuffled(self.samples, self.seed, done, flip=self.flip, shift=self.shift, device=device)
        update = RepeatedUpdate(
            self._update(teacher, tuning, flat, fitted, progress), flat.tensors, self._recorder(device)
        )
        moves = _moves(self.updates).to(device)
        for number in range(done, self.updates):
            progress("tuning", number, self.updates)
            checkpoint.save(STAGE, number, _started(network) | flat.state())
            batch = next(batches)
            update(batch.images, batch.numbers, moves[number])
        progress("tuning", self.updates, self.updates)
        tuning.put(flat.averages())
        before = self._divergence(teacher, Tuning(program, (), steps), held_out, progress)
        after = self._divergence(teacher, tuning, held_out, progress)
        return tuning.applied() if after < before else network

    def _start(self, network: SpikingNetwork, run: CalibrationRun) -> SpikingNetwork:
        if "bias" in self.tune and network.schedule == "synchronous":
            return FTBC(batches=3 * self.rounds, seed=self.seed).calibrate(network, run)
        first = run.data if len(run.data) <= STARTED_ON else run.data.split(STARTED_ON)[0]
        return MeanMatching(self.rounds).calibrate(network, replace(run, data=first))

    def _check_network(self, network: SpikingNetwork) -> None:
        for name, spec in network.neurons.items():
            if spec.reset != "subtract":
                raise InputError(f"The static method needs the soft reset, and layer {name!r} is reset to a value.")
            if spec.silent is not None:
                raise InputError(f"The static method starts from plain neurons, and layer {name!r} has silent ones.")
        if (self.flip or self.shift or self.both_sides) and len(network.input_shape) != 3:
            raise InputError(
                "flip, shift and both_sides are for images (channels, height, width), and this network takes "
                f"{network.input_shape}: leave them out."
            )
        if "weight" in self.tune and network.quantisation is not None:
            raise InputError("Weights are tuned before a network is quantised: tune those of the float32 network.")

    def _update(
        self, teacher: Program, tuning: Tuning, flat: FlatParameters, fitted: CalibrationData, progress: Progress
    ) -> TuningUpdate:
        return TuningUpdate(
            teacher,
            tuning,
            flat,
            samples=min(self.samples, len(fitted)),
            known=self._known_outputs(teacher, fitted, progress),
            both_sides=self.both_sides,
            precision=partial(self._precision, teacher.device),
        )

    def _recorder(self, device: torch.device) -> Recorder | None:
        """What records updates: on a GPU, where all that an update does is known to be recordable."""
        # What processes exchange is sent by other threads, and what torch.compile makes may choose its own kernels.
        alone = process_count() == 1 and not self.compiled
        return CudaGraphs(device) if device.type == "cuda" and alone else None

    def _known_outputs(self, teacher: Program, fitted: CalibrationData, progress: Progress) -> Tensor | None:
        """The teacher's outputs for all images, (samples, classes), if updates see them again as they are."""
        # The mean over both sides is that of the mirror image as well.
        unmoved = not self.shift and (self.both_sides or not self.flip)
        if not unmoved or self.updates * self.samples < 2 * len(fitted):
            return None
        with self._precision(teacher.device):
            return teacher_table(teacher, fitted, progress, both_sides=self.both_sides)

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        """That of the convolutions of an update."""
        dtype = mixed_precision_type(device) if self.precision == "mixed" else None
        # Without a scaled loss, small gradients vanish in float16.
        return mixed_precision(device, None if dtype == torch.float16 else dtype)

    def _divergence(self, teacher: Program, tuning: Tuning, data: CalibrationData, progress: Progress) -> float:
        """The mean of the loss over images."""
        total = torch.zeros((), dtype=torch.float64, device=teacher.device)
        with torch.no_grad():
            for number, images in enumerate(data.ordered()):
                progress("measuring what the tuning has brought", number * data.batch_size, len(data))
                images = images.to(teacher.device)
                expected = teacher_logits(teacher, images, both_sides=self.both_sides)
                total += summed_divergence(expected, tuning, images).double()
        progress("measuring what the tuning has brought", len(data), len(data))
        summed([total])
        return float(total) / len(data)


def _parts(data: CalibrationData) -> tuple[CalibrationData, CalibrationData]:
    """The images to tune on and those held out; of too few for all processes, the same ones for both."""
    held_out = min(HELD_OUT, len(data) // 5)
    return (data, data) if held_out == 0 else data.split(len(data) - held_out)


def _moves(updates: int) -> Tensor:
    """For each update what rates are multiplied by, and how far the averages follow: (updates, 2), float64."""
    cosine = [0.5 * (1.0 + math.cos(math.pi * number / updates)) for number in range(updates)]
    shares = [max(1.0 - AVERAGED, 9.0 / (number + 10.0)) for number in range(updates)]
    return torch.tensor([cosine, shares], dtype=torch.float64).T.contiguous()


def _started(network: SpikingNetwork) -> dict[str, Tensor]:
    """What a tuning started from, as its state holds it."""
    state = {f"start/v_init/{name}": torch.from_numpy(spec.v_init) for name, spec in network.neurons.items()}
    for name, spec in network.neurons.items():
        if spec.bias is not None:
            state[f"start/bias/{name}"] = torch.from_numpy(spec.bias)
    return state


def _restarted(network: SpikingNetwork, start: Mapping[str, Tensor]) -> SpikingNetwork:
    """The network that the tuning started from."""
    changed = dict(network.neurons)
    for key, value in start.items():
        kind, name = key.split("/", 1)
        array = value.numpy()
        changed[name] = replace(changed[name], v_init=array) if kind == "v_init" else replace(changed[name], bias=array)
    return network.with_neurons(changed)


def _part(kept: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in kept.items() if key.startswith(prefix)}
