"""No figure in the README is typed by hand: its tables are those that the benchmarks wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
TABLES = re.findall(r"<!-- (docs/measured/\S+\.md) -->", README)
MEASURED = sorted((ROOT / "docs" / "measured").glob("*.json"))
ACCURACIES = [path for path in MEASURED if "methods" in json.loads(path.read_text("utf-8"))]


def test_there_are_tables() -> None:
    assert len(TABLES) == len(set(TABLES)) >= 1 and len(ACCURACIES) >= 1


@pytest.mark.parametrize("name", TABLES)
def test_a_measured_table_stands_in_the_readme_as_it_was_written(name: str) -> None:
    assert f"<!-- {name} -->\n{(ROOT / name).read_text('utf-8')}" in README


@pytest.mark.parametrize("path", ACCURACIES, ids=lambda path: path.name)
def test_a_measured_table_says_what_its_json_says(path: Path) -> None:
    document = json.loads(path.read_text("utf-8"))
    lines = path.with_suffix(".md").read_text("utf-8").splitlines()
    for row in document["methods"]:
        # By T, and at equal cost, where a T may stand that has no column in the first table.
        found = " ".join(line for line in lines if line.startswith(f"| `{row['method']}` |"))
        for share in row["accuracy"].values():
            assert f" {100 * share:.2f}" in found


def test_every_file_that_the_readme_names_is_there() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / link).exists(), link
