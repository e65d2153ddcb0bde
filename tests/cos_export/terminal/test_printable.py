"""What users call things is shown letter for letter, and obeyed by no terminal."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console
from rich.text import Text

from cos_export.terminal.figure_table import FigureTable, figures, prose
from cos_export.terminal.output import fail, show_notes, show_path
from cos_export.terminal.printable import printable, printable_message
from cos_export.terminal.progress_bars import progress_bars

NAMES = ["[/x]", "[bold red]", "[link=file:///etc]", "a\\[b]", ":smile:", "\\"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\rb\nc\x07", r"a\rb\nc\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("\udcff", r"\udcff"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("ümläut 中文 🙂", "ümläut 中文 🙂"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(name: str, shown: str) -> None:
    assert printable(name) == shown


def test_a_newline_of_a_name_on_the_command_line_breaks_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["cos-export", "run", "some/a\nb.npz"])
    assert printable_message("Two lines:\na\nb.npz\x1b is not there.") == "Two lines:\na\\nb.npz\\x1b is not there."


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_name_is_markup(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fail(f"{name} is not there.", 2, False) == 2
    show_notes([f"of {name}"])
    show_path(f"out/{name}")
    shown = capsys.readouterr()
    assert shown.err == f"error: {name} is not there.\n"
    assert shown.out == f"note: of {name}\n  out/{name}\n"


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_stage_is_markup(
    name: str, terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cos_export.terminal.progress_bars.PATIENCE", 0.0)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "200")
    with progress_bars() as progress:
        progress(name, 0, 2)
        progress(name, 2, 2)
    shown = Text.from_ansi(capsys.readouterr().err).plain
    assert terminal or shown.startswith(f"{name}: 2 in ")


def table() -> FigureTable:
    made = FigureTable("Of [/x]", [prose("target"), *figures("spikes", "differ", "")], caption="a [/caption]")
    made.add_row("[/x]\x1b", "1,234,567,890", "0", Text("passed", "green"))
    made.add_row("b", "7")
    return made


def rendered(width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(table())
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_table_that_fits() -> None:
    lines = rendered(50)
    assert lines[0].strip() == "Of [/x]" and lines[2].split() == ["target", "spikes", "differ"]
    assert lines[4].split() == ["[/x]\\x1b", "1,234,567,890", "0", "passed"]
    assert "a [/caption]" in lines


@pytest.mark.parametrize("width", [23, 30])
def test_a_table_that_does_not_fit_has_a_line_for_each_figure(width: int) -> None:
    first = ["Of [/x]", "[/x]\\x1b", "  spikes: 1,234,567,890", "  differ: 0", "  passed"]
    assert rendered(width) == [*first, "b", "  spikes: 7", "a [/caption]", ""]


def test_the_narrowest_terminal_cuts_nothing_off() -> None:
    lines = rendered(8)
    assert max(map(len, lines)) <= 8
    assert "1,234,567,890" in "".join(line.strip() for line in lines)
