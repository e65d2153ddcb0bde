"""Standard output is a command's own."""

import io
import subprocess
import sys

from cos_export.terminal import standard_output

SCRIPT = """
import atexit, os, sys
from cos_export.terminal.standard_output import console, release, reserved, stream

@reserved
def command():
    print("a print")
    os.system("echo a child")
    os.write(1, b"compiled code\\n")
    atexit.register(lambda: print("the end"))
    stream().write("the document\\n")
    console().print("the table")
    return 7

assert command() == 7
stream().write("the error\\n")
release()
"""


def test_prints_of_others_go_to_standard_error():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout == "the document\nthe table\nthe error\n"
    assert sorted(done.stderr.splitlines()) == ["a child", "a print", "compiled code", "the end"]


def test_a_stream_in_place_of_standard_output(monkeypatch):
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    def command():
        sys.stdout.write("a print\n")
        standard_output.stream().write("the document")

    standard_output.reserved(command)()
    standard_output.release()
    assert (out.getvalue(), err.getvalue(), sys.stdout) == ("the document", "a print\n", out)
