"""The documents: what they name is there, their tables are what was measured and declared, and they stay readable."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from calibration import METHODS
from cos_export.network.schedule import SCHEDULES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in (*DOCS.rglob("*.md"), *ROOT.glob("*.md")))
METHOD_PAGES = sorted((DOCS / "methods").glob("*.md"))
MARK = re.compile(r"<!-- (?:options of|measured:) (\S+) -->")
WORDS_OF_A_METHOD, WORDS_OF_THE_README, WORDS_OF_A_BULLET = 700, 1800, 60


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def words(text: str) -> int:
    """Words of a text; the bars of a table and the signs of a formula are none."""
    return sum(any(sign.isalnum() for sign in word) for word in text.split())


@pytest.fixture
def method_pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("method_pages")


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_what_a_page_links_to_is_there(path: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", path.read_text("utf-8")):
        file, _, anchor = link.partition("#")
        target = (path.parent / file) if file else path
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in headings}


@pytest.mark.parametrize("path", METHOD_PAGES, ids=named)
def test_the_tables_of_a_method_are_those_of_its_fields_and_measurements(path: Path, method_pages: ModuleType) -> None:
    page = path.read_text("utf-8")
    assert method_pages.with_tables(page) == page, "run: python benchmarks/method_pages.py"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_page_with_both_tables(name: str) -> None:
    page = (DOCS / "methods" / f"{name}.md").read_text("utf-8")
    assert MARK.findall(page) == [name, name]
    assert page.startswith(f"# {name}\n")
    assert all(f"**{part}.**" in page for part in ("When", "Cost", "Source"))
    assert f"[`{name}`]({name}.md)" in (DOCS / "methods" / "index.md").read_text("utf-8")


@pytest.mark.parametrize("path", METHOD_PAGES, ids=named)
def test_a_page_about_methods_is_short(path: Path) -> None:
    if path.name != "index.md":
        assert words(path.read_text("utf-8")) <= WORDS_OF_A_METHOD


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").split()) < WORDS_OF_THE_README


@pytest.mark.parametrize("path", [*METHOD_PAGES, DOCS / "results.md", DOCS / "experiments.md"], ids=named)
def test_no_bullet_is_an_essay(path: Path) -> None:
    for bullet in re.findall(r"^\* (?:.+\n)+?(?=\* |\n|\Z)", path.read_text("utf-8"), re.MULTILINE):
        assert words(bullet) <= WORDS_OF_A_BULLET, bullet


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_a_measured_table_stands_in_a_page_as_it_was_written(path: Path) -> None:
    page = path.read_text("utf-8")
    for name in re.findall(r"<!-- (docs/measured/\S+\.md) -->", page):
        table = re.findall(r"(?:^\|.*\n)+", (ROOT / name).read_text("utf-8"), re.MULTILINE)[0]
        assert table in page, name


def test_the_speed_of_lava_in_the_readme_is_what_was_measured() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    rows = json.loads((DOCS / "measured" / "lava.json").read_text("utf-8"))["rows"]
    shown = [row for row in rows if (row["network"], row["numerics"]) == ("resnet20", "float32")]
    rates = {row["schedule"]: row["batched"] for row in shown}
    stated = re.findall(r"Lava runs (\d+) images of ResNet-20 in a second, layer-wise (\d+) ", readme)
    assert stated == [tuple(f"{rates[schedule]:.0f}" for schedule in SCHEDULES)]


ROOMS = [
    path
    for package in ("cos_export", "calibration", "targets")
    for path in sorted((ROOT / package).iterdir())
    if (path.is_dir() and any(path.glob("*.py"))) or (path.suffix == ".py" and not path.name.startswith("__"))
]


@pytest.mark.parametrize("path", ROOMS, ids=named)
def test_contributing_says_what_every_room_is_for(path: Path) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    section = page.split(f"### {path.parent.name}/\n")[1].split("\n#")[0]
    rooms = {
        name for row in re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE) for name in re.findall(r"`(.+?)`", row)
    }
    assert path.name + "/" * path.is_dir() in rooms, f"say in a row of its table what {named(path)} is for"


def test_contributing_names_no_room_that_is_gone() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for package in ("cos_export", "calibration", "targets"):
        section = page.split(f"### {package}/\n")[1].split("\n#")[0]
        for row in re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE):
            for name in re.findall(r"`(.+?)`", row):
                assert (ROOT / package / name).exists(), f"{package}/{name}"


def test_the_files_of_the_ten_changes_are_there() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    changes = re.findall(r"^\d+\. .+$", page, re.MULTILINE)
    assert len(changes) == 10
    for change in changes:
        folder = Path()
        for name in re.findall(r"`([\w/]+(?:/|\.py|\.jinja))`", change):
            places = [ROOT / name, ROOT / "cos_export" / name, folder / name]
            existing = next((place for place in places if place.exists()), None)
            assert existing is not None, f"{name} in: {change}"
            folder = existing.parent


def module_file(path: str) -> Path:
    return (ROOT / path.replace(".", "/")).with_suffix(".py")


def test_every_public_name_is_in_the_reference() -> None:
    public = dict(re.findall(r"^from \S+ import (\w+) as (\w+)$", (ROOT / "cos_export/__init__.pyi").read_text(), re.M))
    pages = "\n".join(path.read_text("utf-8") for path in sorted((DOCS / "api").glob("*.md")))
    shown = {path.split(".")[-1] for path in re.findall(r"^::: (\S+)$", pages, re.MULTILINE)}
    modules = {path for path in re.findall(r"^::: (\S+)$", pages, re.MULTILINE) if module_file(path).exists()}
    assert modules == {"cos_export.errors"}, "a function behind a module of its name takes its name twice"
    assert set(public) - {"CosExportError", "__version__"} <= shown
