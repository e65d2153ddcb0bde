"""The command that writes a bundle's network in a programming language."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cos_export.bounds import MOST_SAMPLES
from cos_export.terminal.options import JsonOption
from cos_export.terminal.output import finish, show_notes, show_path
from cos_export.terminal.standard_output import console

if TYPE_CHECKING:  # what is slow to import is imported by the command that needs it
    from cos_export.bundle import Bundle
    from cos_export.progress import Progress

__all__ = ["code"]


def code(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle of integers.")],
    out: Annotated[Path, typer.Option(help="Folder of the code; code that was written there earlier is replaced.")],
    language: Annotated[str, typer.Option(help="c: C99, with neither allocation nor floating point.")] = "c",
    name: Annotated[
        str | None, typer.Option(help="What files and identifiers begin with; by default the bundle's folder.")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, max=MOST_SAMPLES, help="Golden inputs that the code's own test runs.")
    ] = 8,
    as_json: JsonOption = False,
) -> int:
    """Write a bundle's network as C99 with a test, compile it, and run the test before it counts as written.

    Example: cos-export code out/digits-int8 --language c --out digits-c
    """
    from cos_export.bundle import load
    from cos_export.c_code.writer import write_c
    from cos_export.errors import InputError, UnavailableError
    from cos_export.terminal.cost_lines import rounded
    from cos_export.terminal.progress_bars import progress_bars
    from targets.c import code_bytes, run_self_test
    from targets.c.compiler import find

    if language != "c":
        raise InputError(f"There is no writer of {language!r}. The languages are: c.")
    opened = load(bundle)
    notes: list[str] = []
    compiler = None
    try:
        compiler = find()
    except UnavailableError as error:
        notes.append(f"The code was not compiled and its test not run. {error}")

    with progress_bars() as progress:

        def check(folder: Path, prefix: str) -> None:
            if compiler is not None:
                progress("writing, compiling and testing", 1, 3)
                run_self_test(folder, prefix, compiler)

        progress("writing, compiling and testing", 0, 3)
        written = write_c(opened, out, name=name, samples=samples, check=check)
        progress("writing, compiling and testing", 2, 3)
        source = written.source
        flash = None if compiler is None else code_bytes(written.folder, source.prefix, source.table_bytes, compiler)
        progress("writing, compiling and testing", 3, 3)
        operations = _operations(opened, progress)
    if not as_json:
        size = "and the code" if flash is None else f"{flash.code:,} of code ({flash.compiler}, -Os, {flash.machine})"
        lines = [
            f"Flash: {source.table_bytes:,} bytes of constants, {size}.",
            f"RAM: {source.state_bytes:,} bytes, and less than 2 kB of stack.",
            f"One image: {rounded(operations['additions'])} additions of a weight for a spike, "
            f"{rounded(operations['products'])} products of the image, {rounded(operations['updates'])} comparisons "
            f"with a threshold (the mean of {len(opened.golden.images)} golden images).",
        ]
        if compiler is not None:
            lines.append(f"The test ran {written.samples} golden images with {compiler.version}: nothing differs.")
        for line in lines:
            console().print(line, highlight=False)
        show_notes(notes)
        for file in written.files:
            show_path(written.folder / file)
    document: dict[str, Any] = {
        "bundle": str(bundle),
        "language": language,
        "folder": str(out),
        "files": list(written.files),
        "table_bytes": source.table_bytes,
        "code_bytes": None if flash is None else flash.code,
        "state_bytes": source.state_bytes,
        "operations": operations,
        "tested_samples": 0 if compiler is None else written.samples,
        "compiler": None if compiler is None else compiler.version,
        "notes": notes,
    }
    return finish(document, as_json, True)


def _operations(bundle: Bundle, progress: Progress) -> dict[str, float]:
    """What one image takes, the mean over the golden ones."""
    from cos_export.costing.counted_run import counted_trace

    golden = bundle.golden
    done = counted_trace(bundle.network, golden.images, golden.trace, None, progress=progress).at(bundle.steps)
    return {"additions": done.effective_acs, "products": done.effective_macs, "updates": float(done.neuron_updates)}
