"""The command that hands out the golden inputs to a runtime of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cos_export.bounds import MOST_SAMPLES
from cos_export.terminal.figure_table import FigureTable, figures, prose
from cos_export.terminal.options import JsonOption
from cos_export.terminal.output import finish, show_notes, show_path
from cos_export.terminal.standard_output import console

__all__ = ["golden"]


def golden(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    out: Annotated[Path, typer.Option(help="The .npz to write; one that is there is replaced.")],
    samples: Annotated[
        int | None, typer.Option(min=1, max=MOST_SAMPLES, help="How many, from the first on; by default all.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Write the golden inputs of a bundle for another runtime, and say what verify --results takes back.

    Example: cos-export golden out/digits --out inputs.npz
    """
    from cos_export.bundle import load
    from cos_export.bundle.results import write_inputs

    opened = load(bundle)
    network, run = opened.network, opened.golden
    arrays = write_inputs(opened, out, samples)
    count, steps, notes = samples or len(run.images), run.trace.steps, []
    expected = {f"spikes/{name}": [steps, count, *network.neurons[name].shape] for name in network.layers}
    expected["logits"] = [steps, count, *network.output_shape]
    if samples is not None:
        expected["samples"] = [count]
        notes.append("'samples' says which of the golden inputs these are, and must be handed back with the results.")
    if network.normalisation is not None:
        notes.append(f"The images are pixels / 255, {network.normalisation.words()}: nothing is left to be done.")
    elif opened.manifest["metrics"].get("normalisation"):
        notes.append(f"The images are {opened.manifest['metrics']['normalisation']}: nothing is left to be done.")
    if network.quantisation is not None:
        notes.append("'integers' is what the network makes of the images: start from either.")
    if run.trace.states is not None:
        notes.append("Each sample starts from its own v_init/<layer>, and is silent where silent/<layer> says.")
    if not as_json:
        table = FigureTable(
            f"What verify --results takes back: T = {steps}, {count} samples", [prose("array"), *figures("shape")]
        )
        for name, shape in expected.items():
            table.add_row(name, " x ".join(map(str, shape)))
        console().print(table)
        show_notes(notes)
        show_path(out)
    document: dict[str, Any] = {
        "bundle": str(bundle),
        "inputs": str(out),
        "arrays": list(arrays),
        "steps": steps,
        "samples": count,
        "normalisation": None if network.normalisation is None else network.normalisation.to_dict(),
        "results": expected,
        "notes": notes,
    }
    return finish(document, as_json, True)
