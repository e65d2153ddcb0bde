"""One command of cos-export with a record of its stages: `scale_worker.py RECORD GIB COMMAND ARGUMENT ...`.

RECORD gets wall and processor seconds and the peak of memory as JSON, by stage as the progress callback names them
and in all; and how often each function of this project was found at work, innermost, every 50 ms. A process that takes
more than GIB gibibytes, its children with it, ends itself: others may need the machine.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
INTERVAL = 0.05
"""Seconds between two looks at what runs."""

COUNTED = frozenset({"writing the bundle"})
"""Stages whose pieces are different things, each a stage of its own."""


class Recorder:
    """A progress callback that knows what each stage has cost."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}
        self.peak = 0
        self._stage, self._began, self._used = "start", time.perf_counter(), cpu_seconds()
        self._first = self._began

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """As `cos_export.progress.Progress`."""
        name = f"{stage}, {done} of {total} done" if stage in COUNTED else stage
        self.enter(f"after {stage}" if done >= total else name)

    def enter(self, stage: str) -> None:
        """Ends one stage and begins another."""
        if stage == self._stage:
            return
        now, used, peak = time.perf_counter(), cpu_seconds(), highest_memory(reset=True)
        row = self.stages.setdefault(self._stage, {"seconds": 0.0, "cpu_seconds": 0.0, "peak": 0})
        row["seconds"] += now - self._began
        row["cpu_seconds"] += used - self._used
        row["peak"] = max(row["peak"], peak)
        self.peak = max(self.peak, peak)
        self._stage, self._began, self._used = stage, now, used

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._first


class Sampler(threading.Thread):
    """Looks now and then at what the main thread does, and at the memory of this process and its children."""

    def __init__(self, most: int) -> None:
        super().__init__(daemon=True)
        self.found: Counter[str] = Counter()
        self.together = 0
        self._most, self._main, self._number = most, threading.main_thread().ident, 0

    def run(self) -> None:
        """Until the process ends."""
        while True:
            time.sleep(INTERVAL)
            self.found[self._at_work()] += 1
            self._number += 1
            if self._number % 4:
                continue
            self.together = max(self.together, memory_of_family())
            if self.together > self._most:
                sys.stderr.write(f"stopped: {self.together / 2**30:.1f} GiB are more than was allowed.\n")
                os._exit(86)

    def _at_work(self) -> str:
        frame = sys._current_frames().get(self._main or 0)
        while frame is not None:
            path = frame.f_code.co_filename
            if path.startswith(str(ROOT)) and not path.startswith(str(ROOT / "benchmarks")) and ".venv" not in path:
                return f"{Path(path).relative_to(ROOT)}:{frame.f_code.co_name}"
            frame = frame.f_back
        return "Python and libraries"


def cpu_seconds() -> float:
    """Of this process and of those of its children that have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def highest_memory(*, reset: bool = False) -> int:
    """The most bytes resident since the last reset."""
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return highest


def memory_of_family() -> int:
    """Bytes resident of this process and all that come from it; what they share counts in each."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # It has just ended.
    total, family = 0, [os.getpid()]
    while family:
        one = family.pop()
        family += [child for child, parent in parents.items() if parent == one]
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1])
        except OSError:
            continue
    return total * resource.getpagesize()


def main() -> None:
    """Runs the command in this process."""
    import cli
    from cos_export.terminal import progress_bars

    path, most, *command = sys.argv[1:]
    recorder, sampler = Recorder(), Sampler(int(float(most) * 2**30))

    @contextmanager
    def recording() -> Iterator[Recorder]:
        yield recorder
        recorder.enter("the end of the command")

    progress_bars.progress_bars = recording
    sampler.start()
    sys.argv = ["cos-export", *command]
    try:
        code: Any = cli.main()
    except SystemExit as ended:
        code = ended.code
    recorder.enter("end")
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    document = {
        "exit_code": int(code or 0),
        "seconds": recorder.seconds,
        "cpu_seconds": cpu_seconds(),
        "peak": recorder.peak,
        "peak_of_a_child": children,
        "peak_together": max(sampler.together, recorder.peak),
        "stages": recorder.stages,
        "found_at_work": dict(sampler.found.most_common(25)),
    }
    Path(path).write_text(json.dumps(document, indent=2) + "\n")
    sys.exit(int(code or 0))


if __name__ == "__main__":
    main()
