"""What a conversion starts from: a trained module, or the network of a NIR file, whose own metadata win."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from calibration.choices import Auto, Choices
from calibration.identity import fingerprint
from calibration.methods.method import Method, PerSampleMethod
from calibration.methods.unchanged import Unchanged
from calibration.records import method_of
from cos_export.bundle.data import network_dataset
from cos_export.capturing.tail import Tail, flat
from cos_export.datasets import Dataset, Normalisation, Split, in_memory, load_dataset
from cos_export.device import resolve_device
from cos_export.errors import InputError
from cos_export.module_logits import eval_mode, one_tensor
from cos_export.network import FloatArray, SpikingNetwork, check_inputs
from cos_export.numerics import FLOAT32
from cos_export.progress import Progress, silent
from cos_export.shared_logits import shared_ann_logits, shared_module_logits
from cos_export.training.evaluation import check_logits
from cos_export.user_code import user_code

__all__ = [
    "Channels",
    "Source",
    "check_frames",
    "check_takes",
    "choices_for",
    "digest_of",
    "logits_of",
    "source_dataset",
]

Source = nn.Module | SpikingNetwork
Channels = float | Sequence[float] | None


def choices_for(source: Source, choices: Choices) -> Choices:
    """The user's choices, with what a network that was read says itself.

    Its schedule, its integers and, unless a method is named, its initial potentials (or its per-sample method) stay.

    Raises:
        InputError: An option has no meaning for a network that was read, or contradicts it; or "none" was asked for of
            a module, which says no potentials.
    """
    if not isinstance(source, SpikingNetwork):
        if isinstance(choices.method, Unchanged):
            raise InputError("'none' keeps the potentials of a NIR file, and a module has none: take half.")
        return choices
    plain = Choices(choices.method, choices.steps)
    captured = ("levels", "max_pool", "thresholds", "per_channel")
    if given := [name for name in captured if getattr(choices, name) != getattr(plain, name)]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(
            f"{options} is about the activations of a module, and a NIR file has thresholds. Leave it out."
        )
    numerics = choices.numerics
    if source.quantisation is not None:
        if numerics not in (FLOAT32, source.numerics) or choices.quantisation:
            raise InputError(f"The file holds a network of {source.numerics}, which cannot be quantised again.")
        numerics = FLOAT32  # Nothing is left to quantise.
    method = choices.method
    if isinstance(method, Auto):
        method = method_of(source).per_sample or Unchanged()
    schedule = choices.schedule if source.schedule == "synchronous" else source.schedule
    return replace(choices, method=method, numerics=numerics, schedule=schedule)


def source_dataset(
    source: Source, spec: str, split: Split, mean: Channels, std: Channels, *, size: tuple[int, int] | None = None
) -> Dataset:
    """The data set called `spec` as the source takes it: a network that was read may say mean and std itself.

    Raises:
        InputError: There is no such data set, the source does not take its images, or it contradicts the network.
    """
    if isinstance(source, SpikingNetwork):
        asked = Normalisation.of(mean, std)
        known = source.normalisation is not None
        dataset = network_dataset(source, "The NIR file", spec, asked, known=known, split=split, size=size)
    else:
        dataset = load_dataset(spec, split, mean=mean, std=std, size=size)
    check_takes(source, dataset)
    return dataset


def check_takes(source: Source, dataset: Dataset) -> None:
    """Runs one image, so that a misfit is named before it is a traceback from deep inside the module."""
    if isinstance(source, SpikingNetwork):
        check_inputs(source, dataset.first(1), 1)
        if len(source.output_shape) != 1:
            raise InputError(f"Labels need a readout (classes,), and this network's has shape {source.output_shape}.")
        return
    images = dataset.first(1).mean_over_time().images
    shape = tuple(images.shape[1:])
    grey = " (if these are grey images, save them as images[:, None])" if len(shape) == 2 else ""
    failure = f"{type(source).__name__} does not take images of shape {shape} from {dataset.name}{grey}"
    with user_code(failure), eval_mode(source), torch.no_grad():
        # A copy, for forward may write into it.
        logits = one_tensor(source(torch.from_numpy(in_memory(images).copy())))
    check_logits(source, flat(logits) if logits.ndim == 1 else logits, dataset, one_for_two=True)


def check_frames(dataset: Dataset, steps: int, method: Method | None = None) -> None:
    """Refuses frames that are fewer than the steps, and a method that takes none, before any work.

    Raises:
        InputError: They are, or it does not.
    """
    if dataset.frames is None:
        return
    if dataset.frames < steps:
        raise InputError(
            f"{dataset.name} has {dataset.frames} frames for each sample, and {steps} steps are asked for."
        )
    if isinstance(method, PerSampleMethod):
        raise InputError(
            f"{method.name!r} pre-simulates an input that is held, and the frames of {dataset.name} change from step "
            "to step. Take a static method, which is calibrated on their mean over time."
        )


def logits_of(
    source: Source, dataset: Dataset, device: str, tail: Tail | None = None, *, progress: Progress = silent
) -> FloatArray:
    """What the source decides by on images, (samples, classes): a network by what its layers stand for.

    Several processes in a `process_group` each compute their share.

    Args:
        source: A module, or a network.
        dataset: Images; of frames their mean over time.
        device: Where to run.
        tail: What the module does to its logits at its end.
        progress: Told of each batch.
    """
    where, images = resolve_device(device), dataset.mean_over_time().images
    if isinstance(source, SpikingNetwork):
        return shared_ann_logits(source, images, device=where, progress=progress)
    outputs = flat(shared_module_logits(source, images, device=where, progress=progress))
    logits: FloatArray = (tail or Tail()).logits(outputs).numpy()
    return logits


def digest_of(source: Source) -> str:
    """A hash of all that the source computes with, in hexadecimal."""
    if isinstance(source, SpikingNetwork):
        told = f"{fingerprint(source)}{source.schedule}"
        return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
    arrays: Mapping[str, torch.Tensor] = {name: tensor.detach().cpu() for name, tensor in source.state_dict().items()}
    digest = hashlib.blake2b(str(source).encode(), digest_size=16)
    for name, tensor in arrays.items():
        digest.update(f"{name}/{tuple(tensor.shape)}/{tensor.dtype}".encode())
        digest.update(np.ascontiguousarray(tensor.float().numpy()).data)
    return digest.hexdigest()
