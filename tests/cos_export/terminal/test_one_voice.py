"""What the main process says of a failure, and what the others leave to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch.distributed as dist
from command_line import run

from cos_export import processes
from cos_export.terminal import one_voice
from cos_export.terminal.one_voice import Failure, agreed

As = Callable[[int], None]


@pytest.fixture
def acting_as(monkeypatch: pytest.MonkeyPatch) -> As:
    """Makes this process the one with a number of two, which meet in its memory and wait for nobody."""
    store = dist.HashStore()  # type: ignore[attr-defined]
    monkeypatch.setattr(processes, "meeting_place", lambda patience: store)
    monkeypatch.setattr(one_voice, "_PATIENCE", 0.0)
    monkeypatch.setattr(one_voice, "_GRACE", {})
    monkeypatch.setenv("WORLD_SIZE", "2")
    return lambda number: monkeypatch.setenv("RANK", str(number))


def test_one_process_says_what_it_has_to() -> None:
    assert agreed("no such file", 2, Failure.own) == ("no such file", 2)


def test_what_both_fail_by_the_main_one_says(acting_as: As) -> None:
    acting_as(0)
    assert agreed("no such file", 2, Failure.own) == ("no such file", 2)
    acting_as(1)
    assert agreed("no such file", 2, Failure.own) is None


def test_one_that_the_main_one_does_not_hear_speaks_itself(acting_as: As) -> None:
    acting_as(1)
    assert agreed("the disk is full", 1, Failure.own) == ("Process 2 of 2: the disk is full", 1)


@pytest.mark.parametrize("here", [Failure.lost, Failure.interrupted])
def test_the_main_one_names_the_cause(acting_as: As, here: Failure) -> None:
    acting_as(1)
    agreed("the disk is full", 1, Failure.own)
    acting_as(0)
    assert agreed("the others are gone", 3, here) == ("Process 2 of 2: the disk is full", 1)


def test_ctrl_c_on_another_ends_the_main_one_as_on_itself(acting_as: As) -> None:
    acting_as(1)
    agreed("Interrupted.", 130, Failure.interrupted)
    acting_as(0)
    assert agreed("the others are gone", 3, Failure.lost) == ("Process 2 of 2: Interrupted.", 130)


def test_what_the_main_one_is_to_blame_for_it_says_itself(acting_as: As) -> None:
    acting_as(1)
    agreed("the others are gone", 3, Failure.lost)
    acting_as(0)
    assert agreed("the disk is full", 1, Failure.own) == ("the disk is full", 1)


def test_a_store_that_is_gone_keeps_nobody_from_speaking(acting_as: As, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(patience: object) -> None:
        raise RuntimeError("connection refused")

    monkeypatch.setattr(processes, "meeting_place", gone)
    acting_as(1)
    assert agreed("the disk is full", 1, Failure.own) == ("Process 2 of 2: the disk is full", 1)


def test_commands_that_share_nothing_refuse(acting_as: As) -> None:
    acting_as(0)
    done = run("check", "digits")
    assert done.returncode == 2 and "start it once, without torchrun" in done.stderr
    acting_as(1)
    silent = run("check", "digits")
    assert (silent.returncode, silent.stdout, silent.stderr) == (2, "", "")
