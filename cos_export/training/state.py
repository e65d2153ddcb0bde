"""A training between two epochs, as a file that it can go on from, to the same weights bit for bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from cos_export.atomic_file import atomic_write
from cos_export.datasets import Dataset, StoredImages
from cos_export.errors import InputError
from cos_export.qcfs import QCFS
from cos_export.reading.state import read_state_file, state_digest
from cos_export.training.recipe import Recipe
from cos_export.training.result import Epoch

__all__ = ["Trainee", "fingerprint", "read_state", "state_path", "write_state"]

_FORMAT = "cos-export-training/1"


@dataclass
class Trainee:
    """All that changes while a network is trained.

    Attributes:
        model: The network, with the dtype and on the device that it is trained on.
        optimizer: SGD over the model's parameters.
        scaler: Scales the loss of a training in float16, else switched off.
        generator: Draws the order of the samples and their augmentation. torch's global generators, which drive
            dropout, belong to the state too.
        history: The epochs that are done.
        seconds: What they took.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    generator: torch.Generator
    history: tuple[Epoch, ...] = ()
    seconds: float = 0.0

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.model.parameters()).device


def state_path(out: str | Path) -> Path:
    """Where the state of the training that will write `out` is kept: net.resume.safetensors for net.safetensors."""
    return Path(out).with_suffix(".resume.safetensors")


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """What tells one data set from another, as JSON; to be taken once, for all samples are read."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(dataset.images, StoredImages):
        digest.update(dataset.images.fingerprint.encode())
    else:
        digest.update(np.ascontiguousarray(dataset.images).data)
    digest.update(np.ascontiguousarray(dataset.truth).data)
    return {"samples": len(dataset), "shape": list(dataset.images.shape[1:]), "digest": digest.hexdigest()}


def write_state(
    path: Path, trainee: Trainee, recipe: Recipe, data: Mapping[str, Any], start: Mapping[str, Any] | None = None
) -> None:
    """Writes all that `read_state` needs. The file is there whole or not at all, whenever the process is killed.

    Args:
        path: Where to.
        trainee: What to keep.
        recipe: How it is trained.
        data: The `fingerprint` of what it is trained on.
        start: What the weights were before the first epoch, as JSON, where that is known.

    Raises:
        InputError: The file cannot be written there.
    """
    tensors = {f"model/{key}": value for key, value in trainee.model.state_dict().items()}
    for name, parameter in trainee.model.named_parameters():
        held = trainee.optimizer.state.get(parameter, {}).get("momentum_buffer")
        if held is not None:
            tensors[f"momentum/{name}"] = held
    tensors["generator/samples"] = trainee.generator.get_state()
    tensors["generator/cpu"] = torch.get_rng_state()
    if trainee.device.type == "cuda":
        tensors["generator/cuda"] = torch.cuda.get_rng_state(trainee.device)
    about = {
        "format": _FORMAT,
        "recipe": recipe.to_dict(),
        "data": dict(data),
        "start": dict(start or {}),
        "levels": _levels(trainee.model),
        "history": [[epoch.loss, epoch.accuracy] for epoch in trainee.history],
        "seconds": trainee.seconds,
        "scaler": trainee.scaler.state_dict(),
    }
    copies = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    about["digest"] = state_digest(about, copies)
    with atomic_write(path) as draft:
        draft.write_bytes(save(copies, metadata={"state": json.dumps(about, sort_keys=True)}))


def read_state(
    path: Path, trainee: Trainee, recipe: Recipe, data: Mapping[str, Any], start: Mapping[str, Any] | None = None
) -> None:
    """Puts `trainee` where it was when `path` was written; all of it, or nothing if anything does not fit.

    Args:
        path: What `write_state` wrote.
        trainee: As at the start of the training, its model of the same kind.
        recipe: As for `write_state`.
        data: As for `write_state`.
        start: As for `write_state`.

    Raises:
        InputError: The file is not such a state, is cut short, or is that of another network, recipe, data
            set or start.
    """
    about, tensors = _content(path)
    _check_same(path, "recipe", about["recipe"], recipe.to_dict())
    _check_same(path, "data", about["data"], dict(data))
    # Neither changes a shape: the weights of one would go on in the other. States of earlier versions hold neither.
    known = {"start": json.loads(json.dumps(dict(start or {}))), "levels": _levels(trainee.model)}
    for key, what in (("start", "start"), ("levels", "number of levels")):
        _check_same(path, what, about.get(key, known[key]), known[key])
    model = {key.removeprefix("model/"): value for key, value in tensors.items() if key.startswith("model/")}
    shapes = {key: tuple(value.shape) for key, value in trainee.model.state_dict().items()}
    _check_same(path, "network", {key: tuple(value.shape) for key, value in model.items()}, shapes)
    parameters = dict(trainee.model.named_parameters())
    momentum = {key.removeprefix("momentum/"): value for key, value in tensors.items() if key.startswith("momentum/")}
    wrong = [
        name for name, value in momentum.items() if name not in parameters or value.shape != parameters[name].shape
    ]
    on_gpu = trainee.device.type == "cuda"
    if wrong or ("generator/cuda" in tensors) != on_gpu:
        here = "on a CUDA device" if on_gpu else "on a CPU"
        raise InputError(f"{path} was not written by a training {here} with this optimizer. {_AWAY}")
    try:
        history = tuple(Epoch(float(loss), float(share)) for loss, share in about["history"])
        trainee.generator.set_state(tensors["generator/samples"])
        torch.set_rng_state(tensors["generator/cpu"])
        if on_gpu:
            torch.cuda.set_rng_state(tensors["generator/cuda"], trainee.device)
        if trainee.scaler.is_enabled():
            trainee.scaler.load_state_dict(about["scaler"])
        trainee.seconds = float(about["seconds"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is not a whole state of a training: {error} {_AWAY}") from error
    trainee.history = history
    trainee.model.load_state_dict(model, strict=True)
    for name, value in momentum.items():
        # In the parameter's own memory layout, in which the optimizer is quick.
        held = torch.empty_like(parameters[name], requires_grad=False).copy_(value)
        trainee.optimizer.state[parameters[name]]["momentum_buffer"] = held


_AWAY = "Delete it to train from the start."


def _content(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    about, tensors = read_state_file(path, "training", _FORMAT, _AWAY)
    kinds = {"recipe": dict, "data": dict, "history": list, "seconds": int | float, "scaler": dict}
    late = {"start": dict, "levels": dict}
    whole = all(isinstance(about.get(key), kind) for key, kind in kinds.items())
    if not whole or not all(isinstance(about.get(key, {}), kind) for key, kind in late.items()):
        raise InputError(f"{path} is not a whole state of a training. {_AWAY}")
    return about, tensors


def _levels(model: nn.Module) -> dict[str, int]:
    """L of each quantised activation, which no tensor of the model holds."""
    return {name: module.levels for name, module in model.named_modules() if isinstance(module, QCFS)}


def _check_same(path: Path, what: str, held: dict[str, Any], here: dict[str, Any]) -> None:
    keys = [key for key in here | held if held.get(key) != here.get(key)]
    if keys:
        listed = "\n  ".join(f"{key}: {held.get(key, 'absent')} there, {here.get(key, 'absent')} here" for key in keys)
        raise InputError(f"{path} is the state of a training with another {what}. {_AWAY}\n  {listed}")
