"""Tables of what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from cos_export.accuracy import AccuracyRow
from cos_export.bundle import Bundle
from cos_export.bundle.file_names import MANIFEST
from cos_export.excerpt import excerpt
from cos_export.parity import ParityResult, TargetParity
from cos_export.terminal.cost_lines import COST_CAPTION, cost_lines, cost_rows
from cos_export.terminal.figure_table import Column, FigureTable, figures, prose
from cos_export.terminal.printable import words
from cos_export.training import TrainingResult

__all__ = [
    "accuracy_table",
    "layer_table",
    "limits_table",
    "parity_table",
    "refusal_lines",
    "show_conversion",
    "show_parity",
    "target_table",
    "training_table",
    "violation_lines",
]


_MOST_STEPS = 16
"""Steps that a table has columns for; of more, so many are shown, evenly spread."""


_MOST_SAMPLES = 12
"""Numbers of samples in a caption."""


def accuracy_table(ann: float | None, rows: Sequence[AccuracyRow], title: str) -> FigureTable:
    """Accuracy in percent by method and step, the artificial network first, with what each input costs."""
    shown = excerpt(list(rows[0].accuracy), _MOST_STEPS)
    table = FigureTable(title, [prose("method"), *figures("made for T", "rho", *(f"T = {t}" for t in shown))])
    if ann is not None:
        table.add_row("ANN", "", "", f"{100 * ann:.1f}")
        table.add_section()
    for row in rows:
        # A per-sample method spends rho steps before the first: what one input costs stands beside its accuracy.
        shares = [f"{100 * row.accuracy[t]:.1f}" + (f" ({row.rho + t})" if row.rho else "") for t in shown]
        table.add_row(row.method, str(row.num_timesteps or "any"), str(row.rho), *shares)
        for name, *cells in cost_rows(row, shown):
            table.add_row(name, "", "", *cells)
    brackets = "in brackets: T_total = rho + T\n" if any(row.rho for row in rows) else ""
    table.caption = f"{brackets}{COST_CAPTION}"
    return table


def parity_table(result: ParityResult) -> FigureTable:
    """One line for each target."""
    table = FigureTable(
        "Parity with the PyTorch run",
        [prose("target"), *figures("spikes", "differ", "violations", "logits off", "decisions", "")],
    )
    for target in result.targets.values():
        table.add_row(
            target.name,
            f"{target.comparison.compared:,}",
            f"{target.mismatches:,}",
            f"{target.local_violations:,}",
            f"{target.comparison.logit_difference:.1e}",
            str(target.comparison.decisions_changed),
            Text("passed", "green") if target.passed else Text("FAILED", "bold red"),
        )
    for name in result.refused:
        table.add_row(name, *[""] * 5, Text("NO RESULT", "bold red"))
    exact = any(target.exact for target in result.targets.values())
    rule = "A violation is a spike or logit that rounding cannot explain."
    if exact:
        rule = "In integers not one spike or logit may differ."
    faults = "".join(f"\n{fault}" for fault in result.record_faults)
    if result.states_differing and not result.record_faults:
        faults = f"\n{result.states_differing:,} recorded states of samples are set otherwise here, as rounding may do."
    table.caption = f"{_samples_of(result)}, T = {result.steps}. {rule}{faults}"
    return table


def _samples_of(result: ParityResult) -> str:
    """How many samples, and which of the golden ones where it was not all."""
    if result.golden_samples is None:
        return f"{result.samples} samples"
    shown = ", ".join(map(str, result.golden_samples[:_MOST_SAMPLES]))
    more = "" if result.samples <= _MOST_SAMPLES else f" and {result.samples - _MOST_SAMPLES} more"
    return f"Not all of the golden samples, but {result.samples}: {shown}{more} (from 0)"


def limits_table(quantisation: Mapping[str, Any]) -> FigureTable:
    """What can occur in each layer of a network of integers, and which limits of Loihi 2 that exceeds.

    Args:
        quantisation: As the manifest has it.
    """
    table = FigureTable(
        "Ranges of integers, proved from the weights",
        [
            prose("layer"),
            *figures("weights", "threshold", "largest current", "largest sum", "T that fits", "bias exponent"),
            prose("beyond Loihi 2"),
        ],
    )
    for layer in quantisation["layers"]:
        span = layer["range"]
        low, high = span["threshold_minimum"], span["threshold_maximum"]
        table.add_row(
            span["name"],
            f"{span['weight_minimum']}..{span['weight_maximum']}",
            f"{high:,}" if low == high else f"{low:,}..{high:,}",
            f"{max(-span['current_minimum'], span['current_maximum']):,}",
            f"{span['largest_sum']:,}",
            "any" if span["steps_that_fit"] is None else f"{span['steps_that_fit']:,}",
            "none" if layer["bias_exponent"] is None else str(layer["bias_exponent"]),
            "; ".join(layer["exceeded"]),
        )
    return table


def layer_table(target: TargetParity) -> FigureTable:
    """Layer by layer: differing spikes at every step, and local violations."""
    layers = target.comparison.layers
    steps = len(next(iter(layers.values())).mismatches) if layers else 0
    shown = excerpt(range(steps), _MOST_STEPS)
    counted = ("all steps",) if len(shown) < steps else ()
    names = (*(f"t = {t + 1}" for t in shown), *counted, "local violations", "near ties")
    table = FigureTable(f"{target.name}: differing spikes by layer and step", [prose("layer"), *figures(*names)])
    for name, layer in layers.items():
        local = target.local.layers[name]
        counts = [f"{layer.mismatches[t]:,}" for t in shown]
        total = [f"{layer.mismatches.sum():,}"] if counted else []
        table.add_row(name, *counts, *total, f"{local.violations.sum():,}", f"{local.near_ties.sum():,}")
    return table


def violation_lines(target: TargetParity) -> list[str]:
    """Where a target first differs, and the violations that were listed, in words; in fixed point how many spikes."""
    lines = []
    if target.exact:
        lines.append(f"{target.name}: {target.mismatches:,} of {target.comparison.compared:,} spikes differ.")
    if target.states_fault:
        lines.append(f"{target.name}: of the states that it sets for each sample by itself, {target.states_fault}")
    first = target.comparison.first
    if first is not None:
        verb = "fired" if first.fired else "did not fire"
        where = _place(first.layer, first.step, first.sample, first.neuron)
        margin = _margin(first.margin, first.bound)
        lines.append(f"{target.name}: first differs at {where}, which {verb}: {margin}.")
    for violation in target.local.listed:
        where = _place(violation.layer, violation.step, violation.sample, violation.neuron)
        lines.append(f"{target.name}: local violation at {where}: {_margin(violation.margin, violation.bound)}.")
    return lines


def refusal_lines(result: ParityResult) -> list[str]:
    """Why targets have no result, a line each."""
    return [f"{name}: no result. {error}" for name, error in result.refused.items()]


def _place(layer: str, step: int, sample: int, neuron: tuple[int, ...]) -> str:
    return f"layer {layer}, step {step}, sample {sample}, neuron {neuron}"


def _margin(margin: float, bound: float) -> str:
    """m(t) - theta; in a network of integers all its digits, and no bound."""
    return f"margin {margin:.3g}, bound {bound:.3g}" if bound else f"margin {margin:.10g}"


def show_parity(console: Console, result: ParityResult) -> None:
    """One line for each target; before it, of a target that differs somewhere, the layers and where it begins."""
    for target in result.targets.values():
        # A readout that is off has no row here: its line says where.
        violated = any(layer.violations.any() for layer in target.local.layers.values())
        if target.mismatches or violated:
            console.print(layer_table(target))
        for line in violation_lines(target):
            console.print(words(line), highlight=False)
    for line in refusal_lines(result):
        console.print(words(line), highlight=False, soft_wrap=True)
    console.print(parity_table(result))


def target_table(states: Mapping[str, Any]) -> FigureTable:
    """The targets with their versions, and why one cannot run."""
    columns = [prose("target"), Column("ready", justify="left"), prose("version"), prose("why not, and what to do")]
    table = FigureTable("Targets", columns)
    for name, state in states.items():
        table.add_row(name, Text("yes", "green") if state.ready else Text("no", "red"), state.version, state.reason)
    return table


def show_conversion(
    console: Console, bundle: Bundle, ann_accuracy: float, rows: Sequence[AccuracyRow], parity: ParityResult | None
) -> None:
    """The closing summary: accuracies, parity, what one input costs, and where the files are."""
    manifest = bundle.manifest
    numerics = manifest["numerics"]
    schedule = "" if bundle.network.schedule == "synchronous" else f", {bundle.network.schedule}"
    measured = manifest["metrics"]
    title = f"Accuracy (%) on {measured['dataset']}, {measured['samples']} images, {numerics}{schedule}"
    console.print(accuracy_table(ann_accuracy, rows, title))
    if parity is not None:
        console.print(parity_table(parity))
        for target in parity.targets.values():
            for line in violation_lines(target):
                console.print(words(line), highlight=False)
        for line in refusal_lines(parity):
            console.print(words(line), highlight=False, soft_wrap=True)
    steps, rho = manifest["num_timesteps"], manifest["rho"]
    made_for, per = manifest["calibrated_timesteps"], "input" if bundle.network.schedule == "synchronous" else "layer"
    differs = "" if made_for in (None, steps) else f" (calibrated for T = {made_for})"
    console.print(
        f"T = {steps}{differs}, rho = {rho}, T_total = {rho + steps} steps per {per}, {numerics}", highlight=False
    )
    for line in cost_lines(manifest["costs"]):
        console.print(line, highlight=False)
    for name in (*sorted(manifest["files"]), MANIFEST):
        console.print(words(f"  {bundle.path / name}"), highlight=False, soft_wrap=True)


def training_table(result: TrainingResult) -> FigureTable:
    """The first, every tenth and the last epoch, and the accuracies at the end."""
    table = FigureTable(f"Training, {result.seconds:.0f} s", figures("epoch", "loss", "accuracy (augmented)"))
    last = len(result.history)
    for number, epoch in enumerate(result.history, 1):
        if number in (1, last) or number % 10 == 0:
            table.add_row(str(number), f"{epoch.loss:.4f}", f"{100 * epoch.accuracy:.1f} %")
    test = "" if result.test_accuracy is None else f", test accuracy {100 * result.test_accuracy:.2f} %"
    table.caption = f"training accuracy {100 * result.train_accuracy:.2f} %{test}"
    return table
