from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import pytest
from command_line import run

from calibration import COS, DEFAULT_METHOD, METHODS, SRP, Half, Static, calibrate, method_named
from calibration import methods as registry
from calibration.choices import Choices
from calibration.methods.method import CalibrationRun, StaticMethod, option
from calibration.options import chosen_method, method_options
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork

COMMANDS = ("convert-and-export", "calibrate")

# The names that command lines have in their scripts, with a value to give and the field that it sets.
NAMES = {
    "--rho 3": ("cos", "rho", 3),
    "--rho 2": ("srp", "tau", 2),
    "--iterations 2": ("cos", "iterations", 2),
    "--tune bias,weight": ("static", "tune", ["bias", "weight"]),
    "--updates 7": ("static", "updates", 7),
    "--learning-rate 0.5": ("static", "learning_rate", 0.5),
    "--flip": ("static", "flip", True),
    "--shift 2": ("static", "shift", 2),
    "--both-sides": ("static", "both_sides", True),
    "--compile": ("static", "compiled", True),
    "--seed 5": ("static", "seed", 5),
    "--no-potential": ("bias", "potential", False),
    "--batch 8": ("ftbc", "samples", 8),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_field_of_every_method_is_an_option_with_its_help(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    shown = re.sub(r"[\s│]+", " ", done.stdout)
    for name, method in METHODS.items():
        for entry in fields(method):
            flag = (entry.metadata["flag"] or entry.name).replace("_", "-")
            assert re.search(rf"--{flag}\b", shown), f"{flag} of {name}"
            assert re.sub(r"\s+", " ", entry.metadata["help"]) in shown, f"the help of {flag} of {name}"
    for panel in ("Network", "Images", "Calibration", "Options of static", "Options of cos, srp"):
        assert f"─ {panel} ─" in done.stdout
    assert "half, opi, rmp, mean-matching, bias, ftbc, static; per sample: cos, srp." in shown


@pytest.mark.parametrize("typed", NAMES)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_typed_reaches_the_method(monkeypatch: pytest.MonkeyPatch, command: str, typed: str) -> None:
    name, field, value = NAMES[typed]
    made: list[Choices] = []

    def convert(options: object, choices: Choices, run_on: object) -> int:
        made.append(choices)
        return 0

    monkeypatch.setattr("cos_export.commands.conversion._convert", convert)
    common = ("digits", "--data", "digits", "--steps", "1", "--out", "out", "--method", name)
    assert run(command, *common, *typed.split()).returncode == 0
    [choices] = made
    assert choices.method.record() == {**METHODS[name]().record(), field: value}


@dataclass(frozen=True)
class Shifted(StaticMethod):
    """A method of one module and one line in the registry."""

    amount: float = option(0.25, "How far every potential is moved, in thresholds.", minimum=0)
    name: ClassVar[str] = "shifted"

    def calibrate(self, network: SpikingNetwork, run: CalibrationRun) -> SpikingNetwork:
        return network


def test_a_new_method_and_its_option_need_no_other_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(registry.METHODS, "shifted", Shifted)
    assert "How far every potential is moved, in thresholds. [default: 0.25]" in run("calibrate", "--help").stdout
    common = ("calibrate", "digits", "--data", "digits", "--steps", "1", "--golden", "2", "--out", tmp_path / "out")
    done = run(*common, "--method", "shifted", "--amount", "0.75", "--json")
    assert json.loads(done.stdout)["calibration"] == {"name": "shifted", "amount": 0.75}
    assert run("verify", tmp_path / "out", "--targets", "pytorch").returncode == 0
    monkeypatch.undo()
    gone = run("verify", tmp_path / "out", "--targets", "pytorch")
    assert gone.returncode == 2 and "There is no calibration method 'shifted'" in gone.stderr


def test_an_option_that_the_method_lacks_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="'half' has no --seed, --rho to choose"):
        chosen_method("half", {"seed": 1, "rho": 4})
    assert chosen_method("half", {"seed": None}) == Half()
    with pytest.raises(InputError, match=r"'cos' has no tau to choose\. It has rho, iterations"):
        method_named("cos", {"tau": 1})


@pytest.mark.parametrize(
    ("method", "wrong"), [(COS, {"rho": 2.5}), (SRP, {"tau": True}), (Static, {"updates": "3"}), (Static, {"flip": 1})]
)
def test_a_value_of_another_type_is_refused_in_python_too(method: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"needs (a whole number|true or false) as"):
        method(**wrong)


def test_one_default_in_both_commands_and_one_of_what_it_tries_in_python() -> None:
    for command in COMMANDS:
        assert "[default: auto]" in run(command, "--help").stdout
    assert calibrate.__defaults__ is not None and DEFAULT_METHOD in calibrate.__defaults__


def test_the_benchmark_has_the_options_of_the_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2] / "benchmarks"), *sys.path])
    from accuracy import add_method_options

    parser = argparse.ArgumentParser()
    add_method_options(parser)
    given = parser.parse_args(["--tune", "bias", "--updates", "3", "--batch", "5", "--flip"])
    assert set(vars(given)) == {entry.destination for entry in method_options()} - {"seed"}
    assert chosen_method("static", vars(given)) == Static(tune=("bias",), updates=3, samples=5, flip=True)
