"""Whatever becomes of the standard streams, a command does its work to the end, without a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

PROGRAM = """
import sys, cli
from pathlib import Path
from cos_export.terminal.output import finish
from cos_export.terminal.printable import words
from cos_export.terminal.progress_bars import _Lines, Console
from cos_export.terminal.standard_output import console, reserved

@reserved
def app(**options):
    for number in range(300):
        print("a user's print", number)
        sys.stderr.write("x" * 500 + "\\n")
        if "--json" not in sys.argv:
            console().print(words("\\u00fc\\u4e2d\\udcff " + "y" * 500))
    Path(sys.argv[1]).write_text("whole")
    return finish({"name": "\\u00fc\\u4e2d\\udcff", "loss": float("nan")}, "--json" in sys.argv, True)

cli._app = lambda: app
cli.main()
"""


def ended(tmp_path: Path, redirection: str, *options: str, **environment: str) -> tuple[int, bytes, str]:
    """Exit code, standard output and standard error of a command in a shell; its file must be whole."""
    program, file = tmp_path / "program.py", tmp_path / "file"
    program.write_text(PROGRAM)
    command = f'"{sys.executable}" "{program}" "{file}" {" ".join(options)} {redirection}'
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        timeout=60,
        check=False,
    )
    said = done.stderr.decode("utf-8", "replace")
    assert "Traceback" not in said and "Exception ignored" not in said
    assert file.read_text() == "whole"
    return done.returncode, done.stdout, said


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    code, out, said = ended(tmp_path, "| head -1; exit ${PIPESTATUS[0]}")
    assert code == 141 and out.count(b"\n") == 1 and "error" not in said


def test_a_reader_of_both_streams_that_goes_away(tmp_path: Path) -> None:
    assert ended(tmp_path, "2>&1 | head -1; exit ${PIPESTATUS[0]}")[0] == 141


def test_a_device_that_is_full(tmp_path: Path) -> None:
    code, _, said = ended(tmp_path, "> /dev/full")
    assert code == 1
    assert "Standard output could not be written: No space left on device. What was asked for is done." in said


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2> /dev/full"])
def test_a_stream_that_is_closed_or_that_nobody_counts_on(tmp_path: Path, redirection: str) -> None:
    assert ended(tmp_path, redirection)[0] == 0


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"LC_ALL": "POSIX"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict"},
        {"PYTHONIOENCODING": "utf-8:strict"},
    ],
)
def test_an_encoding_that_lacks_letters(tmp_path: Path, environment: dict[str, str]) -> None:
    code, out, _ = ended(tmp_path, "", **environment)
    assert code == 0 and b"\\udcff" in out
    code, out, _ = ended(tmp_path, "", "--json", **environment)
    assert code == 0 and json.loads(out.decode("ascii")) == {"name": "\u00fc\u4e2d\udcff", "loss": "nan"}
