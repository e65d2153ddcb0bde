"""How the environment of the clients is made: PyTorch for the processor alone, and of the rest what is imported."""

from __future__ import annotations

import sys
from pathlib import Path

from cos_export.progress import Progress, silent
from targets.clients.environment import CLIENTS_SOFTWARE, TORCH
from targets.workers import installation
from targets.workers.environment import WorkerEnvironment
from targets.workers.installation import Pip, Recipe

__all__ = ["install"]

_PROCESSOR_ALONE = "https://download.pytorch.org/whl/cpu"
"""PyTorch's own index of builds without CUDA: 200 MB in place of several GB. Another that pip knows is as good."""

_LIBRARIES = ("numpy", "h5py", "matplotlib", "loguru", "pbr", "nengo==4.1.0")
"""What this package and the clients import, and Nengo, for which there is an example (`examples/nengo_model.py`)."""

_PINNED = ("nir==1.0.4", "nirtorch==2.6")
"""What sinabs and norse import; the first is the newest that sinabs takes."""


def install(client: str, progress: Progress = silent) -> WorkerEnvironment:
    """Makes the environment of all clients, or returns the one that is there and works: see `workers.installation`.

    Args:
        client: The one that is asked for.
        progress: Told of each step.

    Raises:
        UnavailableError: It could not be made; quotes what failed and says what to do.
        InputError: The folder is in use for something else.
    """
    recipe = Recipe(CLIENTS_SOFTWARE[client], lambda: Path(sys.executable), (_add_torch, _add_clients))
    return installation.install(recipe, progress)


def _add_torch(pip: Pip) -> None:
    pip.install(f"torch=={TORCH.version}", *_LIBRARIES, "--extra-index-url", _PROCESSOR_ALONE, "--retries", "1")


def _add_clients(pip: Pip) -> None:
    """Without what they ask for besides: torchvision, torchaudio, tensorboard, samna, none of which is imported."""
    pinned = [f"{package.name}=={package.version}" for each in CLIENTS_SOFTWARE.values() for package in each.packages]
    pip.install("--no-deps", *pinned, *_PINNED)
