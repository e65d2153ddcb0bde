"""Commands about a bundle and what runs it: verify, run, report, targets."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cos_export.bounds import MAX_STEPS, MOST_SAMPLES
from cos_export.errors import InputError
from cos_export.terminal.options import (
    ConditionOption,
    DataOption,
    DeadlineOption,
    DeviceOption,
    DtOption,
    JsonOption,
    MeanOption,
    ResetOption,
    SamplesOption,
    SizeOption,
    StdOption,
    conventions_of,
    height_and_width,
    names,
    numbers,
)
from cos_export.terminal.output import finish, show_notes, show_path
from cos_export.terminal.standard_output import console

if TYPE_CHECKING:  # what is slow to import is imported by the command that needs it
    from cos_export.bundle.target import Target

__all__ = ["list_targets", "report", "run_bundle", "verify"]


def verify(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    targets: Annotated[
        str | None, typer.Option(help="With commas, as cos-export targets lists them; by default onnxruntime.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="An .npz of spikes and logits that another runtime computed, to be judged.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Run these images in place of the golden inputs; given as of run.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_SAMPLES, help="How many of --data; by default as many as there are golden inputs."
        ),
    ] = None,
    mean: MeanOption = None,
    std: StdOption = None,
    size: SizeOption = None,
    deadline: DeadlineOption = None,
    as_json: JsonOption = False,
) -> int:
    """Run a bundle's golden inputs, or other images, on targets and compare every spike, end to end and locally.

    With --results what another runtime computed is judged in the same way; alone, unless --targets names some as well.
    Where that file says in an array "samples" that only some of the golden inputs were run, only those are judged.

    Example: cos-export verify out/digits --targets onnxruntime,lava
    """
    from calibration import method_of
    from cos_export.bundle import load
    from cos_export.bundle.data import dataset_for
    from cos_export.datasets import Normalisation
    from cos_export.terminal.progress_bars import progress_bars
    from cos_export.terminal.tables import show_parity
    from targets import verification
    from targets.results import RecordedResults

    opened = load(bundle)
    notes = method_of(opened).notes
    asked = Normalisation.of(numbers("--mean", mean), numbers("--std", std))
    if data is None and not (samples is None and asked is None and size is None):
        raise InputError(
            "--samples, --mean, --std and --size are about the images of --data: name them, or leave these out."
        )
    images = None
    if data is not None:
        images = dataset_for(opened, data, asked, size=height_and_width(size))
        images = images.first(samples or min(len(images), opened.manifest["golden_samples"]))
    judged: list[str | Target] = [*names(targets or ("onnxruntime" if results is None else ""))]
    chosen = None
    if results is not None:
        recorded = RecordedResults(results, opened, None if images is None else len(images))
        judged.append(recorded)
        chosen = recorded.golden_samples
    with progress_bars() as progress:
        result = verification.verify(
            opened, judged, images=images, samples=chosen, deadline=deadline, progress=progress
        )
    if not as_json:
        show_parity(console(), result)
        show_notes(notes)
    ran = "golden inputs" if images is None else images.name
    return finish(result.to_dict() | {"dataset": ran, "notes": notes}, as_json, result.passed, result.exit_code)


def run_bundle(
    bundle: Annotated[str, typer.Argument(help="Folder of a bundle, or a .nir file, which is run as it is.")],
    data: DataOption,
    target: Annotated[str, typer.Option(help="One of those that `cos-export targets` lists.")] = "onnxruntime",
    steps: Annotated[
        int | None, typer.Option(min=1, max=MAX_STEPS, help="T of a .nir file; a bundle knows its own.")
    ] = None,
    reset: ResetOption = None,
    condition: ConditionOption = None,
    dt: DtOption = None,
    samples: SamplesOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    size: SizeOption = None,
    device: DeviceOption = "auto",
    deadline: DeadlineOption = None,
    as_json: JsonOption = False,
) -> int:
    """Classify images with a bundle, or a NIR file, on one target and report the accuracy after every step.

    Example: cos-export run out/digits --data digits --target lava --samples 100

    Many processes: torchrun --nproc-per-node 4 -m cos_export run out/digits --data digits
    """
    from calibration import method_of
    from cos_export.accuracy import row_of
    from cos_export.commands.opening import open_to_run
    from cos_export.costing import costs_of
    from cos_export.costing.counted_run import counted_trace
    from cos_export.decisions import decisions
    from cos_export.device import resolve_device
    from cos_export.network import check_inputs
    from cos_export.network.readout import readout_notes
    from cos_export.processes import is_main, local_device, process_group
    from cos_export.shared_logits import shared_ann_logits
    from cos_export.terminal.cost_lines import cost_lines
    from cos_export.terminal.progress_bars import progress_bars
    from cos_export.terminal.tables import accuracy_table
    from targets.running import shared_classify
    from targets.verification import resolve

    [chosen] = resolve([target], deadline=deadline)
    channels = {"mean": numbers("--mean", mean), "std": numbers("--std", std)}
    conventions = conventions_of(reset, condition, dt)
    with open_to_run(
        bundle, data, steps, **channels, conventions=conventions, device=device, size=height_and_width(size)
    ) as run:
        opened, dataset = run.bundle, run.images.first(samples)
        images = check_inputs(opened.network, dataset, opened.steps)
        where = local_device(resolve_device(device))
        recorded = method_of(opened)
        notes = [*recorded.notes, *run.notes, *readout_notes(opened.network)]
        with progress_bars() as progress, process_group(where):
            if dataset.labels is None:
                dataset = dataset.labelled_by(
                    decisions(shared_ann_logits(opened.network, images, device=where, progress=progress))
                )
            right, rho = shared_classify(
                chosen,
                opened,
                images,
                dataset.truth,
                calibration=recorded.per_sample,
                device=str(where),
                progress=progress,
            )
        if not is_main():
            return 0
        with progress_bars() as progress:
            golden = opened.golden
            counted = counted_trace(
                opened.network,
                golden.images,
                golden.trace,
                recorded.per_sample,
                device=str(where),
                activity=True,
                progress=progress,
            )
    row, costs = row_of(right, rho, range(1, opened.steps + 1), counted), costs_of(counted)
    version = chosen.available().version
    if not as_json:
        console().print(
            accuracy_table(None, [row], f"Accuracy (%) of {version} on {dataset.name}, {len(dataset)} images")
        )
        console().print(f"Operations are counted on the bundle's {len(golden.images)} golden images.", highlight=False)
        for line in cost_lines(costs.to_dict()):
            console().print(line, highlight=False)
        show_notes(notes)
    document = {"target": chosen.name, "version": version, "dataset": dataset.name, "samples": len(dataset)}
    document["costs"] = costs.to_dict()
    document |= {"calibration": None if recorded.method is None else recorded.method.record(), "notes": notes}
    return finish(document | row.to_dict(), as_json, True)


def report(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    out: Annotated[
        Path | None, typer.Option(help="The page to write; by default beside the bundle, as BUNDLE.report.html.")
    ] = None,
    targets: Annotated[
        str | None, typer.Option(help="Verify on these first, with commas; by default the page tells of the export.")
    ] = None,
    deadline: DeadlineOption = None,
    as_json: JsonOption = False,
) -> int:
    """Write the report of a bundle anew: accuracies, parity, thresholds, initial potentials and firing.

    Nothing in the bundle is altered. With --json all that the page shows is printed as numbers, too.

    Example: cos-export report out/digits --targets onnxruntime,lava --out digits.html
    """
    from calibration import method_of
    from cos_export.bundle import load
    from cos_export.progress import one_piece
    from cos_export.report import report_destination, report_document, save_report
    from cos_export.terminal.progress_bars import progress_bars
    from cos_export.terminal.tables import show_parity
    from targets import verification

    opened = load(bundle)
    notes = method_of(opened).notes
    page = report_destination(opened, out)
    parity = None
    with progress_bars() as progress:
        if targets is not None:
            parity = verification.verify(opened, names(targets), deadline=deadline, progress=progress)
        with one_piece(progress, "drawing the report"):
            document = report_document(opened, parity, notes=notes)
            save_report(page, document)
    if not as_json:
        if parity is not None:
            show_parity(console(), parity)
        show_notes(notes)
        show_path(page)
    printed = {"bundle": str(bundle), "report": str(page), **document}
    return finish(printed, as_json, parity is None or parity.passed, 0 if parity is None else parity.exit_code)


def list_targets(
    install: Annotated[
        str | None,
        typer.Option(help="Make the environment of a target: lava, or a client, whose is that of all clients."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """List the targets, whether each can run here, and why not.

    Example: cos-export targets --install lava
    """
    import targets as registry
    from cos_export.terminal.progress_bars import progress_bars
    from cos_export.terminal.tables import target_table

    if install is not None:
        with progress_bars() as progress:
            registry.install(install, progress=progress)
    states = {name: registry.get(name).available() for name in registry.names()}
    if not as_json:
        console().print(target_table(states))
    return finish({name: asdict(state) for name, state in states.items()}, as_json, True)
