"""What lives in an environment of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Package", "Software"]


@dataclass(frozen=True)
class Package:
    """A package that an environment must hold, in the one version that the worker was written for.

    Attributes:
        name: As pip spells it.
        version: The version.
        needed_by: What cannot run without it, if the rest can.
    """

    name: str
    version: str
    needed_by: str = ""


@dataclass(frozen=True)
class Software:
    """What a worker runs.

    Attributes:
        name: What `cos-export targets --install` calls it.
        title: What messages call it.
        folder: The name of its environment's folder, beside those of others.
        variable: The environment variable that names another folder.
        packages: What the environment must hold.
        optional: What a part of the software needs besides.
        program: The folder of the worker.
        variables: Environment variables that the worker runs with.
    """

    name: str
    title: str
    folder: str
    variable: str
    packages: tuple[Package, ...]
    program: Path
    optional: tuple[Package, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def install_command(self) -> str:
        """The command that makes the environment."""
        return f"cos-export targets --install {self.name}"
