"""A job for a worker: a folder with job.json and the arrays that it names."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cos_export.drafts import temporary_folder
from targets.workers.software import Software

__all__ = ["PROTOCOL", "Job", "job_folder", "write_job_file"]

PROTOCOL = 7
"""Of job folders and results; a worker refuses any other."""


@dataclass(frozen=True)
class Job:
    """A job that has been written.

    Attributes:
        software: What runs it.
        folder: Where.
        segment_prefix: What the names of its shared memory begin with.
        samples: N.
        deadline: Seconds it may take.
    """

    software: Software
    folder: Path
    segment_prefix: str
    samples: int
    deadline: float


@contextmanager
def job_folder(software: Software) -> Iterator[Path]:
    """An empty folder for a job, which is gone after the block."""
    with temporary_folder(software.name) as folder:
        yield folder


def write_job_file(
    folder: Path, software: Software, document: Mapping[str, Any], *, samples: int, deadline: float
) -> Job:
    """Writes job.json, once what it names is there.

    Args:
        folder: Of the job.
        software: What is to run it.
        document: What the worker is to know beside the entries that every job has.
        samples: N.
        deadline: Seconds it may take.
    """
    job = Job(software, folder, f"cosx_{secrets.token_hex(4)}_", samples, deadline)
    common = {
        "protocol": PROTOCOL,
        "samples": samples,
        "deadline": deadline,
        "parent": os.getpid(),
        "segment_prefix": job.segment_prefix,
    }
    (folder / "job.json").write_text(json.dumps({**document, **common}), encoding="utf-8")
    return job
