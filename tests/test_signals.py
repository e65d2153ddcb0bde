"""Signals at the moments that a kill from outside seldom meets: the first line, a destructor, the clean-up, the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def run(program: str, number: signal.Signals, before: signal.Handlers = signal.SIG_DFL) -> tuple[int, str]:
    """A command whose body is `program`, in which `strike()` sends the signal to the process itself."""
    lines = ["import atexit, os, sys, time, cli", f"def strike(): os.kill(os.getpid(), {int(number)})"]
    lines += [program, "cli._app = lambda: app", "sys.argv = ['cos-export']", "cli.main()"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(number, before),
    )
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("number", SIGNALS)
def test_it_unwinds_once_and_its_clean_up_is_not_disturbed(number: signal.Signals) -> None:
    program = """
def app(**options):
    try:
        strike()
        time.sleep(9)
    finally:
        strike()
        print("cleaned")
"""
    code, said = run(program, number)
    assert code == 130 and "cleaned" in said and "Interrupted" in said


@pytest.mark.parametrize("number", SIGNALS)
def test_after_all_is_done_it_changes_nothing(number: signal.Signals) -> None:
    assert run("atexit.register(strike)\ndef app(**options): print('done')", number) == (0, "done\n")


def test_what_libraries_make_of_an_interruption_is_an_interruption() -> None:
    program = """
def app(**options):
    try: strike(); time.sleep(9)
    except BaseException as error: raise RuntimeError("wrapped") from error
"""
    assert run(program, signal.SIGTERM)[0] == 130


def test_one_that_comes_in_a_destructor_is_not_lost() -> None:
    program = """
class Thing:
    def __del__(self): strike(); time.sleep(0.01)
def app(**options):
    Thing()
    time.sleep(9)
    print("nothing ended the wait")
"""
    code, said = run(program, signal.SIGTERM)
    assert code == 130 and "Interrupted" in said and "nothing ended the wait" not in said


def test_one_that_is_ignored_from_outside_stays_so() -> None:
    """As SIGHUP under nohup, and SIGINT in the background of a script."""
    assert run("def app(**options): strike(); print('done')", signal.SIGHUP, signal.SIG_IGN) == (0, "done\n")


def test_one_that_was_lost_and_comes_again_while_another_unwinds_changes_nothing() -> None:
    """The first is lost in a destructor and sent again after 20 ms; the second is on its way out by then."""
    program = """
class Thing:
    def __del__(self):
        strike()
        time.sleep(0.01)
no_more = cli._Interruption.no_more
def late(interruption):
    cli._Interruption.no_more = no_more
    time.sleep(0.2)
    no_more(interruption)
cli._Interruption.no_more = late
def app(**options):
    Thing()
    raise KeyboardInterrupt
"""
    code, said = run(program, signal.SIGTERM)
    assert code == 130 and "Interrupted" in said


def test_one_that_comes_in_code_that_is_run_as_text_ends_with_the_same_exit_code(tmp_path: Path) -> None:
    """CPython notes that such code was interrupted, and would end `python -m` by SIGINT whatever its exit code is."""
    program = """
import os, signal, sys, time, cli
from cos_export.terminal.output import fail
fail("warm", 1, False)
def app(**options):
    exec("os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)")
cli._app = lambda: app
sys.argv = ["cos-export"]
cli.main()
"""
    (tmp_path / "probe.py").write_text(program)
    path = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parent.parent)])}
    command = [sys.executable, "-m", "probe"]
    done = subprocess.run(command, env=os.environ | path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 130 and "Interrupted" in done.stderr
