"""The tables of docs/methods/: a method's options from its fields, its accuracies from docs/measured/*.json.

    python benchmarks/method_pages.py

Writes anew what stands behind the marks `<!-- options of NAME -->` and `<!-- measured: NAME -->`; a test holds them so.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from calibration import METHODS
from calibration.options import MethodOption, method_options

DOCS = Path(__file__).parents[1] / "docs"
NETWORKS = {"resnet20": "ResNet-20", "vgg9": "`vgg9`", "digits": "digits"}
"""What is measured, and what a table calls it."""

TIMES = ("1", "2", "4", "8")
"""T of the columns."""

MARK = re.compile(r"(<!-- (options of|measured:) (\S+) -->\n)(?:\n(?:No options\.|Not measured\.|\|.*(?:\n\|.*)*)\n)?")


def main() -> None:
    """Writes the tables of every page that differs."""
    for path in sorted((DOCS / "methods").glob("*.md")):
        old = path.read_text("utf-8")
        new = with_tables(old)
        if new != old:
            path.write_text(new, "utf-8")
            print(path)


def with_tables(page: str) -> str:
    """The page with the tables that its marks ask for."""
    tables = {"options of": options_table, "measured:": measured_table}
    return MARK.sub(lambda mark: f"{mark[1]}\n{tables[mark[2]](mark[3])}\n", page)


def options_table(method: str) -> str:
    """The options of a method: what command lines and Python call each, its default and its help text."""
    of_it = {option.fields[method].name: option for option in method_options() if method in option.fields}
    rows = [_option_row(of_it[entry.name], method) for entry in fields(METHODS[method])]
    if not rows:
        return "No options."
    name = f"`ce.{METHODS[method].__name__}(...)`"
    return "\n".join([f"| command line | {name} | default | what it is |", "| --- | --- | --- | --- |", *rows])


def _option_row(option: MethodOption, method: str) -> str:
    field = option.fields[method]
    default = ", ".join(field.default) if isinstance(field.default, tuple) else field.default
    flag = f"--{option.flag}`, `--no-{option.flag}" if option.switched_off else f"--{option.flag}"
    shown = "" if default is None else "on" if default is True else "off" if default is False else f"`{default}`"
    return f"| `{flag}` | `{field.name}` | {shown} | {field.metadata['help']} |"


def measured_table(method: str) -> str:
    """Test accuracy of a method in %, on every network and by T."""
    documents = {name: json.loads((DOCS / "measured" / f"{name}.json").read_text("utf-8")) for name in NETWORKS}
    rows = [
        _measured_row(name, document["ann_accuracy"], row)
        for name, document in documents.items()
        for row in document["methods"]
        if row["method"].split(" ")[0] == method
    ]
    if not rows:
        return "Not measured."
    columns = ["network", "method", "ANN", *(f"T = {t}" for t in TIMES)]
    return "\n".join([f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|", *rows])


def _measured_row(network: str, ann: float, row: dict[str, Any]) -> str:
    cells = [NETWORKS[network], f"`{row['method']}`", f"{100 * ann:.2f}"]
    for t in TIMES:
        share, spread = row["accuracy"].get(t), row["spread"].get(t)
        cell = "" if share is None else f"{100 * share:.2f}"
        cell += "" if spread is None else f" +- {100 * spread:.2f}"
        cells.append(f"{cell} ({int(t) + row['rho']})" if row["rho"] and cell else cell)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
