"""The tables of `benchmarks/clients.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from client_runs.ways import WAYS

__all__ = ["markdown"]


def word(rows: Mapping[str, Any]) -> str:
    """What all rows of a way come to: faithful, approximate or unsupported."""
    if any("error" in row for row in rows.values()):
        return "unsupported"
    return "faithful" if all(_is_exact(name, row) for name, row in rows.items()) else "approximate"


def _is_exact(name: str, row: Mapping[str, Any]) -> bool:
    """Whether no spike differs, or in float32 only as rounding explains."""
    differ = sum(row["differ"].values()) if "differ" in row else None
    return differ == 0 or (name.startswith("float32") and row.get("violations") == 0)


def differing(rows: Mapping[str, Any], numerics: str) -> str:
    """Spikes that differ over all T, of how many."""
    counted = [row for name, row in rows.items() if name.startswith(numerics) and "differ" in row]
    if not counted:
        return ""
    return f"{sum(sum(row['differ'].values()) for row in counted):,} of {sum(row['compared'] for row in counted):,}"


def accuracies(rows: Mapping[str, Any], steps: list[int], numerics: str) -> str:
    """The accuracy at each T, in percent, of the run that was made for it."""
    found = [rows.get(f"{numerics}, {t}", {}).get("accuracy") for t in steps]
    return " / ".join(f"{100 * shares[-1]:.1f}" for shares in found if shares)


def ignoring(rows: Mapping[str, Any]) -> str:
    """What an importer ignores, or why it runs nothing."""
    neurons = [row["neurons"] for row in rows.values() if row.get("neurons")]
    said = [
        f"float32 (computes in {row['precision']})" for row in rows.values() if row.get("precision", "f32") != "f32"
    ]
    said += [words for found in neurons for words in found["ignores"] or ()]
    said += [f"from {found['from']} on it is another network" for found in neurons if found["from"]]
    said += [
        " ".join(row["error"].replace("|", "/").split(" - ")[0].split()) for row in rows.values() if "error" in row
    ]
    said += ["it shows no spikes to tell by" for row in rows.values() if "error" not in row and "differ" not in row]
    return "; ".join(dict.fromkeys(said))


def markdown(document: Mapping[str, Any]) -> str:
    """The tables."""
    steps, clients = document["steps"], document["clients"]
    reference = accuracies(next(iter(clients.values()))["through"], steps, "float32")
    columns = ["client or runtime", "version", "through cos-export", "float32: spikes that differ", "int8: likewise"]
    columns += ["accuracy", "as it is", "what it ignores then", "accuracy then"]
    lines = [
        "# Clients and runtimes, measured",
        "",
        f"The digits network, {document['samples']} test images ({document['one_by_one']} in Nengo, which runs one at "
        f"a time), `mean-matching`, T = {' and '.join(map(str, steps))}, each calibrated for.",
        f"Spikes that differ are those of all T. Accuracy (%) at T = {' / '.join(map(str, steps))}; the reference has "
        f"{reference}.",
        "",
        f"* Machine: {document['machine']}.",
        "* Versions: " + ", ".join(f"{name} {number}" for name, number in document["versions"].items()) + ".",
        "",
        f"    {document['command']}",
        "",
        f"| {' | '.join(columns)} |",
        "| " + " | ".join(["---"] * len(columns)) + " |",
    ]
    ways = [way for way in WAYS if way.name in clients]
    for name, row in clients.items():
        through, own = row["through"], row["own"]
        shown = accuracies(through, steps, "float32") or accuracies(through, steps, "int8")
        alone = word(own) if own else next(way.alone for way in ways if way.name == name)
        cells = (
            name,
            row.get("version", ""),
            word(through),
            differing(through, "float32"),
            differing(through, "int8"),
            shown,
        )
        lines.append(f"| {' | '.join(cells)} | {alone} | {ignoring(own)} | {accuracies(own, steps, 'float32')} |")
    lines += ["", "What a reader of NIR loses that ignores a part of the file, accuracy (%):", ""]
    lines += ["| ignored | " + " | ".join(f"T = {t}" for t in steps) + " |", "| --- |" + " --- |" * len(steps)]
    for part in next(iter(document["parts"].values())):
        shares = (document["parts"][str(t)][part] for t in steps)
        lines.append(f"| {part} | " + " | ".join(f"{100 * share:.1f}" for share in shares) + " |")
    lines += [
        "",
        "The two lines that were run, through cos-export:",
        "",
        "| client or runtime | lines |",
        "| --- | --- |",
    ]
    for way in ways:
        lines.append(f"| {way.name} | `{way.through.first}`<br>`{way.through.second}` |")
    return "\n".join(lines) + "\n"
