"""Damages files at random and opens them as the product does: how each trial ends, in what time and memory.

Each outcome must be a valid result or the product's own error: never a traceback, a hang, a crash, or more than 1 GiB.
A child runs the trials of a kind, with a limit on its address space; the parent watches it, and starts another one
after a trial that hung or ended the child. Seeds make every trial repeatable: --first SEED --trials 1.

    python benchmarks/fuzz.py --trials 5000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

DEADLINE = 20.0
"""Seconds after which a trial counts as hung."""

SPARE = 4 * 2**30
"""Bytes of address space that a child may take beyond what it begins with."""

LARGEST = 1024.0
"""MiB that a trial may take."""


def child(kind: str, first: int, last: int) -> None:
    """Runs trials, and prints a line of JSON as each begins and as it ends."""
    import warnings

    from mutations import Trials, outcome

    warnings.simplefilter("ignore")
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what native code prints is not for the parent
    with tempfile.TemporaryDirectory(prefix="cos-export-fuzz-") as folder:
        trials = Trials(kind, Path(folder))
        outcome(trials.kind, trials.file(-1))  # what is imported late is imported now
        size = _memory("VmSize") + SPARE
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        for seed in range(first, last):
            path = trials.file(seed)
            print(json.dumps({"seed": seed}), file=told, flush=True)
            Path("/proc/self/clear_refs").write_text("5")  # the peak of the resident memory begins anew
            before, started = _memory("VmRSS"), time.perf_counter()
            result = outcome(trials.kind, path)
            seconds, mib = time.perf_counter() - started, max(0, _memory("VmHWM") - before) / 2**20
            print(json.dumps({"seed": seed, "outcome": result, "seconds": seconds, "mib": mib}), file=told, flush=True)


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def run(kind: str, first: int, trials: int) -> dict[str, Any]:
    """All trials of a kind."""
    ends: dict[int, dict[str, Any]] = {}
    seed, last = first, first + trials
    while seed < last:
        seed = _watch(kind, seed, last, ends)
    counts = Counter(end["outcome"] for end in ends.values())
    bad = {
        seed: end for seed, end in ends.items() if end["outcome"] not in ("valid", "refused") or end["mib"] > LARGEST
    }
    seconds = sorted(end["seconds"] for end in ends.values())
    return {
        "kind": kind,
        "trials": len(ends),
        "valid": counts["valid"],
        "refused": counts["refused"],
        "bad": bad,
        "seconds_median": seconds[len(seconds) // 2],
        "seconds_largest": seconds[-1],
        "mib_largest": max(end["mib"] for end in ends.values()),
    }


def _watch(kind: str, first: int, last: int, ends: dict[int, dict[str, Any]]) -> int:
    """Runs a child from `first` on until it is done or lost, and returns the seed to go on with."""
    command = [sys.executable, __file__, "--child", kind, str(first), str(last)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = first
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=environment) as process,
        selectors.DefaultSelector() as ready,
    ):
        assert process.stdout is not None
        ready.register(process.stdout, selectors.EVENT_READ)
        patience = 120.0  # for the imports
        while True:
            if not ready.select(patience):
                process.kill()
                ends[running] = {"outcome": "hang", "seconds": patience, "mib": 0.0}
                return running + 1
            line = process.stdout.readline()
            if not line:
                break
            told = json.loads(line)
            running, patience = told["seed"], DEADLINE
            if "outcome" in told:
                ends[told["seed"]] = told
        if process.wait() != 0:
            said.seek(0)
            why = said.read().decode(errors="replace")[-500:]
            if running in ends:
                raise SystemExit(f"The child of {kind} failed before a trial: {why}")
            ends[running] = {"outcome": f"crash {process.returncode}: {why}", "seconds": 0.0, "mib": 0.0}
            return running + 1
    return last


def main() -> None:
    """Prints a line for each kind of file; exits 1 if a trial ended badly."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", help="with commas; all by default")
    parser.add_argument("--trials", type=int, default=5000, help="of each kind")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    from mutations import KINDS

    kinds = options.kinds.split(",") if options.kinds else list(KINDS)
    results = []
    for kind in kinds:
        result = run(kind, options.first, options.trials)
        results.append(result)
        if not options.json:
            print(
                f"{kind:20} {result['trials']:,} trials: {result['valid']:,} valid, {result['refused']:,} refused, "
                f"{len(result['bad'])} bad; {1000 * result['seconds_median']:.1f} ms in the median, at most "
                f"{result['seconds_largest']:.2f} s and {result['mib_largest']:.0f} MiB",
                flush=True,
            )
            for seed, end in result["bad"].items():
                print(f"    seed {seed}: {end['outcome']}, {end['seconds']:.2f} s, {end['mib']:.0f} MiB", flush=True)
    if options.json:
        print(json.dumps(results))
    sys.exit(any(result["bad"] for result in results))


if __name__ == "__main__":
    main()
