"""The test that comes with a network's C code, compiled and run; and how large its code is."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from cos_export.drafts import temporary_folder
from cos_export.errors import ParityError, TargetError
from cos_export.storage import temporary_room
from targets.c.compiler import SECONDS, Compiler
from targets.c.process import finished

__all__ = ["Flash", "code_bytes", "run_self_test"]


@dataclass(frozen=True)
class Flash:
    """What a compiler makes of the code.

    Attributes:
        code: Bytes of instructions, with -Os.
        compiler: Its version.
        machine: What it compiles for.
    """

    code: int
    compiler: str
    machine: str


def run_self_test(folder: Path, prefix: str, compiler: Compiler) -> None:
    """Compiles and runs the test of the code in `folder`.

    Raises:
        TargetError: The compiler failed.
        ParityError: Something differs; the message holds what the test said.
    """
    macro = f"-D{prefix.upper()}_TRACE"
    with temporary_room("the compiled code"), temporary_folder("c") as place:
        program = place / "test"
        sources = [folder / f"{prefix}.c", folder / f"{prefix}_test.c"]
        compiler.compile(sources, program, ["-O2", macro])
        done = finished([str(program)], "The test of the C code", SECONDS)
    if done.returncode != 0:
        lines = "\n  ".join(done.said.strip().splitlines()[:12])
        raise ParityError(f"The C code does not compute what the bundle recorded:\n  {lines}")


def code_bytes(folder: Path, prefix: str, table_bytes: int, compiler: Compiler) -> Flash | None:
    """The instructions of the code in `folder`, or None where the tool `size` is not installed to tell.

    Args:
        folder: Where it is.
        prefix: Of its files.
        table_bytes: Of its constant arrays, which lie beside the instructions.
        compiler: What compiles it.

    Raises:
        TargetError: The compiler failed.
    """
    if shutil.which("size") is None:
        return None
    with temporary_room("the compiled code"), temporary_folder("c") as place:
        made = place / f"{prefix}.o"
        compiler.compile([folder / f"{prefix}.c"], made, ["-Os", "-c"])
        done = finished(["size", str(made)], "size", SECONDS)
    numbers = done.said.strip().splitlines()[-1].split()
    if done.returncode != 0 or not numbers[0].isdigit():
        raise TargetError(f"size cannot read what {compiler.version} made: {done.said.strip()[:200]}")
    return Flash(int(numbers[0]) - table_bytes, compiler.version, platform.machine())
