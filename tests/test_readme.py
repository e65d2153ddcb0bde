"""No figure in the README is typed by hand: its tables are those that the benchmarks wrote."""

from __future__ import annotations

import importlib
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
        printed = " ".join(line for line in lines if line.startswith(f"| `{row['method']}` |"))
        for share in row["accuracy"].values():
            assert f" {100 * share:.2f}" in printed


@pytest.mark.parametrize("model", ["resnet20", "vgg9"])
def test_the_long_calibrations_in_the_tables_are_those_of_the_benchmark(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    headline = importlib.import_module("headline")
    document = json.loads((ROOT / "docs" / "measured" / f"{model}.json").read_text("utf-8"))
    rows = {row["method"]: row["details"] for row in document["methods"]}
    by_steps = rows["static (potential, bias, weight)"]
    assert set(map(int, by_steps)) == set(headline.RECIPES[model])
    for steps, recipe in headline.RECIPES[model].items():
        details = by_steps[str(steps)]
        assert [details[key] for key in ("updates", "samples", "learning_rate")] == [
            recipe.updates,
            recipe.samples,
            recipe.learning_rate,
        ]
        start = None if recipe.after is None else f"{model}-static-{recipe.after}-{{seed}}.nir"
        assert details.get("start_from") == start
        assert (details["flip"], details["shift"], details["both_sides"]) == (True, 4, True)
        assert details["calibration_samples"] == 50000


def test_every_file_that_the_readme_names_is_there() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / link).exists(), link
