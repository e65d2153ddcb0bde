"""The command that looks for the cheapest deployment: search."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated

import typer

from cos_export.bounds import MOST_SAMPLES
from cos_export.commands.network_options import NETWORK, BundleOptions
from cos_export.commands.writing import convert_and_write, resume_file, show_written
from cos_export.errors import InputError
from cos_export.terminal.option_fields import in_panel, taking
from cos_export.terminal.options import DeadlineOption, TargetsOption, names, step_ranges
from cos_export.terminal.output import finish
from cos_export.terminal.standard_output import console

__all__ = ["search"]


class Minimise(StrEnum):
    """What is minimised."""

    latency = "latency"
    operations = "operations"
    steps = "steps"


@dataclass(frozen=True, kw_only=True)
class SearchOptions(BundleOptions):
    """What `search` takes."""

    max_drop: Annotated[float, typer.Option(min=0.0, help="Points of accuracy that may be lost.")] = 0.5
    minimise: Annotated[
        Minimise, typer.Option(help="Steps until the readout, operations per image, or T_total = rho + T.")
    ] = Minimise.latency
    steps: Annotated[str, typer.Option(help="T: whole numbers and ranges with commas, as 1..4,8.")] = "1..8"
    methods: Annotated[str | None, typer.Option(help="With commas; by default cheap ones.")] = None
    schedules: Annotated[str, typer.Option(help="With commas.")] = "synchronous,layerwise"
    rho: Annotated[str, typer.Option(help="Extra steps of per-sample methods, as --steps.")] = "1,2,4"
    held_out: Annotated[int, typer.Option(min=1, max=MOST_SAMPLES, help="Images to compare on at most.")] = 2000
    thresholds: Annotated[
        str | None, typer.Option(help="Of plain ReLUs, with commas; by default mmse and percentile.")
    ] = in_panel(NETWORK, None)
    targets: TargetsOption = "onnxruntime"
    deadline: DeadlineOption = None


@taking(SearchOptions)
def search(options: SearchOptions) -> int:
    """Measure methods, thresholds, steps and schedules on images held out; write the cheapest that keeps the accuracy.

    Killed at any moment, the same command goes on after the last that it has measured. Exit code 1 if nothing keeps it.

    Example: cos-export search digits --data digits --max-drop 0.5 --minimise operations --out out/cheapest
    """
    from calibration.choices import Auto, check_method
    from calibration.methods.unchanged import Unchanged
    from calibration.search import DEFAULT_METHODS, DEFAULT_THRESHOLDS, deployments, outcome
    from calibration.search import search as measured_by_search
    from calibration.sources import choices_for
    from cos_export.atomic_file import check_derived_destination
    from cos_export.bundle import check_destination
    from cos_export.device import resolve_device
    from cos_export.network.schedule import check_schedule
    from cos_export.processes import is_main
    from cos_export.report.search_picture import save_search_picture
    from cos_export.storage import resolved
    from cos_export.terminal.progress_bars import progress_bars
    from cos_export.terminal.search_table import deployed_line, search_lines, search_table
    from cos_export.zoo.model_source import is_nir
    from targets.verification import resolve

    # Everything that can be refused is refused before the first second of work.
    if not math.isfinite(options.max_drop):
        raise InputError(f"--max-drop is a number of points of accuracy, and is {options.max_drop}.")
    run_on = resolve(names(options.targets), deadline=options.deadline)
    destination = check_destination(options.out)
    state, picture = (resolved(destination.with_name(f"{destination.name}.search.{end}")) for end in ("json", "png"))
    check_derived_destination(picture, b"\x89PNG")
    resolve_device(options.device)
    # No method is chosen yet, and all of them may need images to calibrate on.
    rule = DEFAULT_THRESHOLDS[0] if options.thresholds is None else options.thresholds
    choices = options.bundle_choices(Auto(), 1, rule, options.device)
    check_method(choices)
    loaded = options.loaded()
    choices = replace(choices_for(loaded.source, choices), method=Auto(), thresholds=DEFAULT_THRESHOLDS[0])
    # What a file says of its potentials is a deployment as well; a module says nothing.
    cheap = (*([Unchanged.name] if is_nir(options.model) else []), *DEFAULT_METHODS)
    candidates, refused = deployments(
        names(options.methods) if options.methods is not None else cheap,
        step_ranges("--steps", options.steps),
        [check_schedule(schedule) for schedule in names(options.schedules)],
        step_ranges("--rho", options.rho),
        options.numerics,
        DEFAULT_THRESHOLDS if options.thresholds is None else names(options.thresholds),
    )
    for one in candidates:
        choices_for(loaded.source, replace(choices, method=one.method))
    with progress_bars() as progress:
        parts = options.parts(loaded.source, choices, held_out=options.held_out, progress=progress)
        measured, ann = measured_by_search(loaded.source, parts, choices, candidates, state=state, progress=progress)
    samples_held_out = 0 if parts.held_out is None else len(parts.held_out)
    result = outcome(measured, options.minimise.value, options.max_drop, ann, samples_held_out, refused)
    document = result.to_dict()
    shown = save_search_picture(picture, document) if result.measured and is_main() else None
    if not options.as_json:
        console().print(search_table(document))
        for line in search_lines(document):
            console().print(line, highlight=False, soft_wrap=True, markup=False)
        for path in (shown, state):
            console().print(f"  {path}", highlight=False, soft_wrap=True)
    files = {"picture": None if shown is None else str(shown), "state": str(state)}
    if result.winner is None:
        return finish({"bundle": None, "search": document, **files}, options.as_json, False)
    winner = result.winner.deployment
    rule = winner.thresholds or choices.thresholds
    chosen = replace(choices, method=winner.method, steps=winner.steps, schedule=winner.schedule, thresholds=rule)
    told = {key: value for key, value in document.items() if key not in ("measured", "front", "failed", "refused")}
    with progress_bars() as progress:
        written = convert_and_write(
            loaded,
            parts,
            chosen,
            options.out,
            golden=options.golden,
            strip_v_reset=options.nir_compat is not None,
            run_on=run_on,
            resume=resume_file(destination),
            metrics={"search": told},
            opset=options.opset,
            # Methods and steps were compared on the images held out.
            deployed_only=True,
            progress=progress,
        )
    if written is None:
        return 0
    if not options.as_json:
        show_written(written, limits=options.limits)
        line = deployed_line(written.bundle.manifest)
        console().print(line, highlight=False, soft_wrap=True, markup=False)
    return finish(
        {**written.document(), "search": document, **files}, options.as_json, written.passed, written.exit_code
    )
