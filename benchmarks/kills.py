"""Kills commands at random moments, and looks at what is left: nothing half-written, nothing lost.

    OMP_NUM_THREADS=1 python benchmarks/kills.py --moments 100 --out docs/measured/kills

Each command is killed by SIGKILL, SIGTERM and SIGINT in turn, over an earlier result and over nothing in turn. After
each kill its destination must be the earlier result, the new one or nothing, whole in any case; a signal that can be
handled must end in exit code 130, or 0 if all was done, without a traceback, and leave nothing hidden. Then the same
command is given again: it must exit 0, come to the bytes of an undisturbed run, and leave nothing else in the folder.

The moments are spread evenly over the whole run, from Python's first lines and its imports to its end.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from out_files import write_out

import cli

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
START_UP = 0.3
"""Seconds after the start of a process of its own, before which Python itself may not have begun to run this code."""

EXPORT = ["--data", "digits", "--samples", "64", "--golden", "8", "--steps"]
TUNING = ["--method", "static", "--updates", "6", *EXPORT]
COMMANDS = {
    "train": (["train", "digits", "--epochs", "2", "--out", "out.safetensors"], ["--seed", "0"], ["--seed", "1"]),
    "calibrate": (["calibrate", "digits", "--out", "out", *TUNING], ["2"], ["1"]),
    "convert-and-export": (["convert-and-export", "digits", "--out", "out", *EXPORT], ["2"], ["1"]),
    "verify": (["verify", "out"], [], []),
}
"""What is run, how its end differs from the earlier result's, and the end that made the earlier result."""


@dataclass(frozen=True)
class Found:
    """What a kill and the run after it came to.

    Attributes:
        code: The exit code of the killed process.
        state: Of the destination after the kill: "earlier", "new", "nothing", or "broken".
        faults: All that should not be.
    """

    code: int
    state: str
    faults: tuple[str, ...]


def main() -> None:
    """Runs the kills and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=100, help="of each command")
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="for OUT.json and OUT.md")
    given = parser.parse_args()
    results = {name: kill_often(name, given.moments, random.Random(given.seed)) for name in given.commands}
    table = markdown(results)
    print(table)
    if given.out is not None:
        document = {name: [vars(row) for row in rows] for name, rows in results.items()}
        write_out(given.out, document, table + "\n")
    sys.exit(any(row.faults for rows in results.values() for row in rows))


def kill_often(name: str, moments: int, random_: random.Random) -> list[Found]:
    """Kills one command at many moments."""
    command, new, earlier = COMMANDS[name]
    with tempfile.TemporaryDirectory() as folder:
        references = {}
        for kind, end in (("earlier", earlier), ("new", new)):
            place = Path(folder) / kind
            place.mkdir()
            if name == "verify":
                finish(["convert-and-export", "digits", "--out", "out", *EXPORT, "1"], place)
            began = time.monotonic()
            finish([*command, *end], place)
            seconds = time.monotonic() - began
            references[kind] = place
        rows = []
        for number in range(moments):
            place = Path(folder) / "work"
            if number % 2 == 0 or name == "verify":
                shutil.copytree(references["earlier"], place)
            else:
                place.mkdir()
            moment = random_.uniform(START_UP, seconds * 1.02)
            rows.append(kill_once([*command, *new], place, references, SIGNALS[number % 3], moment))
            shutil.rmtree(place)
            left = f"exit code {rows[-1].code}, {rows[-1].state}"
            said = "; ".join(rows[-1].faults) or "as it should be"
            print(f"{name}, {SIGNALS[number % 3].name} after {moment:.2f} s: {left}: {said}", flush=True)
        return rows


def kill_once(
    command: list[str], place: Path, references: dict[str, Path], number: signal.Signals, moment: float
) -> Found:
    """Kills one run, looks at what is left, and gives the command again."""
    log = place.with_name("log")
    pid = start(command, place, log)
    time.sleep(moment)
    os.kill(pid, number)  # It is not collected yet, so its number is still its own.
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    said, polite = log.read_text(), number is not signal.SIGKILL
    state, faults = state_of(place, references), []
    if code not in ((130, 0) if polite else (-9, 0)):
        faults.append(f"exit code {code}: {said[-300:]}")
    if "Traceback" in said or "Exception ignored" in said:
        faults.append(f"a traceback: {said[-300:]}")
    if state == "broken":
        faults.append(f"half-written: {names(place)}")
    if polite and any(name.startswith(".") for name in names(place)):
        faults.append(f"hidden: {names(place)}")
    again = os.waitstatus_to_exitcode(os.waitpid(start(command, place, log), 0)[1])
    if again != 0:
        faults.append(f"given again it ended with {again}: {log.read_text()[-300:]}")
    elif digest(place) != digest(references["new"]):
        faults.append(f"given again it came to something else: {names(place)}")
    return Found(code, state, tuple(faults))


def start(command: list[str], place: Path, log: Path) -> int:
    """Starts the command line in `place`; returns the number of the process."""
    with log.open("w") as file:
        program = [sys.executable, "-m", "cos_export", *command]
        environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parent)}
        return subprocess.Popen(program, cwd=place, stdout=file, stderr=file, env=environment).pid


def finish(command: list[str], place: Path) -> None:
    """Runs a command undisturbed."""
    log = place.with_name("log")
    code = os.waitstatus_to_exitcode(os.waitpid(start(command, place, log), 0)[1])
    if code != 0:
        sys.exit(f"{' '.join(command)} ended with {code}: {log.read_text()}")


def names(place: Path) -> list[str]:
    """Every path in a folder, hidden ones too."""
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


def digest(place: Path, only: str | None = None) -> dict[str, str]:
    """A hash of each file in a folder, of those alone whose path begins with `only` if given."""
    return {
        name: hashlib.sha256((place / name).read_bytes()).hexdigest()
        for name in names(place)
        if (place / name).is_file() and (only is None or name.startswith(only))
    }


def state_of(place: Path, references: dict[str, Path]) -> str:
    """Which result is at the destination: of a training the weights, of all else the bundle."""
    only = "out.safetensors" if (references["new"] / "out.safetensors").exists() else "out/"
    here = digest(place, only)
    for kind in ("new", "earlier"):
        if here == digest(references[kind], only):
            return kind
    return "broken" if here else "nothing"


def markdown(results: dict[str, list[Found]]) -> str:
    """The table."""
    lines = [
        "| command | kills | exit codes | destination after the kill | faults |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, rows in results.items():
        codes = Counter(row.code for row in rows)
        states = Counter(row.state for row in rows)
        listed = (", ".join(f"{key}: {count}" for key, count in sorted(c.items())) for c in (codes, states))
        lines.append(f"| {name} | {len(rows)} | {' | '.join(listed)} | {sum(bool(row.faults) for row in rows)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
