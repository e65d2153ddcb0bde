"""The C compiler of this machine."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cos_export.errors import StorageError, TargetError, UnavailableError
from targets.c.process import finished

__all__ = ["SECONDS", "STRICT", "Compiler", "find"]

NAMES = ("cc", "gcc", "clang")
"""What is looked for, unless the environment variable CC says otherwise."""

STRICT = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Wconversion")
"""What the code compiles under without a warning."""

SECONDS = 600.0
"""That a compiler may take where nobody has said a deadline."""

_FULL = os.strerror(errno.ENOSPC)

_SHOWN = 12
"""Lines of what a compiler says."""


@dataclass(frozen=True)
class Compiler:
    """A C compiler.

    Attributes:
        command: How it is called, with whatever options CC gives it.
        version: The first line that it says of itself.
    """

    command: tuple[str, ...]
    version: str

    def compile(
        self,
        sources: Sequence[Path],
        out: Path,
        options: Sequence[str],
        *,
        seconds: float = SECONDS,
        allowed: float | None = None,
    ) -> None:
        """Compiles sources into one file.

        Args:
            sources: Files of C.
            out: What is made.
            options: Beside `STRICT`.
            seconds: That it may take.
            allowed: What the user has allowed for this and what follows; by default `seconds`.

        Raises:
            TargetError: It failed, or was not done in time.
            StorageError: The temporary folder cannot hold what it makes.
        """
        arguments = [*self.command, *STRICT, *options, *map(str, sources), "-o", str(out)]
        done = finished(arguments, "The C compiler", seconds, allowed=allowed)
        if done.returncode != 0:
            said = "\n  ".join(done.said.strip().splitlines()[:_SHOWN])
            if not said or _FULL in said:
                # What it says goes to the same disk.
                free = shutil.disk_usage(out.parent).free
                raise StorageError(
                    f"{shlex.join(self.command)} ended with {done.returncode}, as it seems for want of room: "
                    f"{free / 2**20:,.1f} MiB are free in {out.parent.parent}. Name a folder on a larger disk in the "
                    "environment variable TMPDIR."
                )
            raise TargetError(
                f"{shlex.join(self.command)} ended with {done.returncode} on the network's code:\n  {said}"
            )


def find() -> Compiler:
    """The compiler that CC names, or else the first that is installed of `cc`, `gcc` and `clang`.

    Raises:
        UnavailableError: There is none, or it does not start.
    """
    asked = shlex.split(os.environ.get("CC", ""))
    candidates = [tuple(asked)] if asked else [(name,) for name in NAMES]
    for command in candidates:
        if shutil.which(command[0]) is not None:
            return Compiler(command, _version(command))
    if asked:
        raise UnavailableError(f"CC names {asked[0]!r}, which is not installed. Unset it, or name another compiler.")
    raise UnavailableError(
        f"No C compiler is installed: there is no {', '.join(NAMES[:-1])} or {NAMES[-1]}. Install one, or name it in "
        "the environment variable CC."
    )


def _version(command: tuple[str, ...]) -> str:
    try:
        said = subprocess.run(
            [*command, "--version"], capture_output=True, stdin=subprocess.DEVNULL, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UnavailableError(f"The C compiler {command[0]!r} does not say its version: {error}.") from error
    return said.stdout.decode("utf-8", "replace").partition("\n")[0].strip()
