"""The command line as a user meets it: exit codes, two streams, and nothing left behind."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundles import scale_threshold
from command_line import run
from safetensors import safe_open

import cli
import targets
from calibration import Static
from calibration.identity import fingerprint
from cos_export.bundle import load
from cos_export.errors import StorageError

COMMAND = [sys.executable, "-m", "cos_export"]

USER_MODULE = """
import torch
from torch import nn
from cos_export import QCFS

def good():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), QCFS(4, 1.0), nn.Flatten(), nn.Linear(256, 10))

def bad():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10))

def relu():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10)
    )

class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)])
        self.head = nn.Linear(256, 10)

    def forward(self, x):
        for layer in self.layers:
            x = nn.functional.relu(layer(x))
        return self.head(nn.functional.dropout(x.flatten(1), 0.1, self.training))

def not_a_module():
    return 3
"""


@pytest.mark.parametrize("command", [command.name for command in cli._app().registered_commands])
def test_every_command_can_be_quiet(command: str) -> None:
    shown = run(command, "--help").stdout
    assert "--quiet" in shown and "--json" in shown


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the digits network, made once, by a process of its own."""
    folder = tmp_path_factory.mktemp("cli") / "digits"
    arguments = ["convert-and-export", "digits", "--data", "digits", "--steps", "2", "--method", "half"]
    arguments += ["--golden", "16", "--targets", "onnxruntime", "--out", str(folder), "--json"]
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["bundle"] == str(folder)
    assert document["metrics"]["ann_accuracy"] >= 0.98
    assert document["parity"]["targets"]["onnxruntime"]["local_violations"] == 0
    return folder


def test_verify_and_its_table(bundle: Path) -> None:
    done = run("verify", bundle, "--targets", "pytorch,onnxruntime")
    assert done.returncode == 0
    assert "passed" in done.stdout and "FAILED" not in done.stdout
    as_json = run("verify", bundle, "--targets", "pytorch", "--json")
    document = json.loads(as_json.stdout)
    assert document["passed"] and document["targets"]["pytorch"]["mismatches"] == 0


def test_run_reports_every_step(bundle: Path) -> None:
    done = run("run", bundle, "--data", "digits", "--samples", "100", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0 and document["samples"] == 100
    assert list(document["accuracy"]) == ["1", "2"] and min(document["accuracy"].values()) > 0.9


def test_a_users_own_network_and_data(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(USER_MODULE)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", images=rng.random((40, 1, 8, 8), np.float32), labels=rng.integers(0, 10, 40))
    done = run(
        *("convert-and-export", "mine:good", "--data", "data.npz", "--steps", "3", "--golden", "8"),
        *("--targets", "onnxruntime,pytorch", "--out", "out", "--opset", "17", "--json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert onnx.load(tmp_path / "out" / "model.onnx").opset_import[0].version == 17
    metrics = json.loads(done.stdout)["metrics"]
    counts = (metrics["calibration_samples"], metrics["selection"]["samples"], metrics["samples"])
    assert counts == (16, 4, 20), "the three parts must not overlap"
    assert metrics["captured_ann_accuracy"] == metrics["ann_accuracy"]
    per_sample = run(
        *("convert-and-export", "mine:good", "--data", "data.npz", "--steps", "3", "--method", "cos", "--rho", "2"),
        *("--golden", "8", "--out", "out", "--json"),
        cwd=tmp_path,
    )
    document = json.loads(per_sample.stdout)
    assert (document["rho"], document["total_timesteps"], document["metrics"]["samples"]) == (2, 5, 40)
    again = run("run", "out", "--data", "data.npz", "--json", cwd=tmp_path)
    assert again.returncode == 0 and json.loads(again.stdout)["rho"] == 2
    assert json.loads(again.stdout)["accuracy"]["3"] == document["metrics"]["methods"][1]["accuracy"]["3"]
    costs = document["costs"]
    assert json.loads(again.stdout)["costs"] == costs and costs["samples"] == 8
    assert costs["timing"]["latency"] == document["metrics"]["methods"][1]["latency"]["3"]
    layers = costs["timing"]["depth"]["layers"]
    assert costs["timing"]["latency"] == 2 * layers + 3


WRONG = {
    "no such network": (["nothing"], 2, "There is no network 'nothing'"),
    "no such module": (["nowhere:factory"], 2, "'nowhere:factory' cannot be imported"),
    "no such function": (["mine:missing"], 2, "has no attribute 'missing'"),
    "no module made": (["mine:not_a_module"], 2, "returned a int"),
    "unsupported operations": (["mine:bad"], 2, "sigmoid"),
    "no such weights": (["digits", "--weights", "w.safetensors"], 2, "There is no file of weights w.safetensors"),
    "no such data": (["digits", "--data", "gone.npz"], 2, "gone.npz"),
    "wrong shape": (["digits", "--data", "wide.npz"], 2, "does not take images of shape (1, 16, 16)"),
    "no such method": (["digits", "--method", "best"], 2, "There is no calibration method 'best'"),
    "no such target": (["digits", "--targets", "loihi"], 2, "loihi"),
    "no such device": (["digits", "--device", "tpu"], 2, "'tpu' is not a device"),
    "absent device": (["digits", "--device", "cuda:7"], 3, "'cuda:7' is not on this machine"),
    "zero steps": (["digits", "--steps", "0"], 2, "steps"),
    "a folder with other files": (
        ["digits", "--out", "other"],
        2,
        "not a bundle, and will not be replaced: notes.txt",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_named_and_leaves_nothing(tmp_path: Path, case: str) -> None:
    arguments, code, message = WRONG[case]
    (tmp_path / "mine.py").write_text(USER_MODULE)
    np.savez(tmp_path / "wide.npz", images=np.zeros((4, 1, 16, 16), np.float32), labels=np.zeros(4, np.int64))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    defaults = {"--data": "digits", "--steps": "1", "--out": "out", "--method": "half"}
    given = [a for name, value in defaults.items() if name not in arguments for a in (name, value)]
    before = sorted(path.name for path in tmp_path.rglob("*") if "__pycache__" not in path.parts)
    done = run("convert-and-export", *arguments, *given, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.rglob("*") if "__pycache__" not in p.parts) == before


def test_unsupported_operations_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(USER_MODULE)
    done = run(
        *("convert-and-export", "mine:bad", "--data", "digits", "--steps", "1", "--out", "out", "--json"), cwd=tmp_path
    )
    error = json.loads(done.stdout)
    assert error["exit_code"] == 2 and done.returncode == 2
    assert "sigmoid" in error["error"] and "max_pool" not in error["error"]


def test_check_lists_everything_and_exits_1_on_a_blocker(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(USER_MODULE)
    done = run("check", "digits", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["passed"]
    blocked = run("check", "mine:bad", "--input-shape", "1,8,8", cwd=tmp_path)
    assert blocked.returncode == 1 and "sigmoid" in blocked.stdout and "max_pool2d" in blocked.stdout
    unknown = run("check", "mine:bad", cwd=tmp_path)
    assert unknown.returncode == 2 and "--input-shape 3,32,32" in unknown.stderr
    wrong = run("check", "mine:bad", "--input-shape", "1,eight,8", cwd=tmp_path)
    assert wrong.returncode == 2 and "takes whole numbers" in wrong.stderr


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_relu_network_converts_with_thresholds_from_data(tmp_path: Path, per_channel: bool) -> None:
    (tmp_path / "mine.py").write_text(USER_MODULE)
    arguments = ["convert-and-export", "mine:relu", "--data", "digits", "--steps", "8", "--method", "cos"]
    arguments += ["--samples", "50", "--golden", "8", "--out", "out", "--json"]
    refused = run(*arguments, "--max-pool", "refuse", cwd=tmp_path)
    assert refused.returncode == 2 and "max_pool" in json.loads(refused.stdout)["error"]
    options = ["--max-pool", "average", "--thresholds", "percentile", *(["--per-channel"] if per_channel else [])]
    done = run(*arguments, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    metrics = json.loads(done.stdout)["metrics"]
    assert metrics["calibration_samples"] == 50
    recorded = metrics["relu_thresholds"]
    assert (recorded["method"], recorded["per_channel"]) == ("percentile", per_channel)
    assert np.shape(recorded["values"]["1"]) == ((4,) if per_channel else ())


def test_a_damaged_bundle_is_named(bundle: Path, tmp_path: Path) -> None:
    done = run("verify", tmp_path, "--json")
    assert done.returncode == 2 and "is not a bundle" in json.loads(done.stdout)["error"]


def test_a_failed_parity_exits_1(bundle: Path, tmp_path: Path) -> None:
    """A planted fault: the ONNX graph of another threshold, with the manifest made to agree."""
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    scale_threshold(broken, "act2", 1.1)
    done = run("verify", broken, "--json")
    result = json.loads(done.stdout)["targets"]["onnxruntime"]
    assert done.returncode == 1 and not result["passed"]
    violated = {name for name, layer in result["layers"].items() if sum(layer["local_violations"])}
    assert violated == {"act2"}


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing_half_written(tmp_path: Path, signal_number: int) -> None:
    arguments = ["digits", "--data", "digits", "--steps", "32", "--method", "mean-matching", "--out", "out"]
    process = subprocess.Popen(
        [*COMMAND, "convert-and-export", *arguments],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A suite that runs in a shell's background has inherited that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    assert process.stderr.readline().strip(), "a line of progress: the work has begun"
    process.send_signal(signal_number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Interrupted" in error and "Traceback" not in error
    # On a slow machine the calibration has run for ten seconds, and its state is kept, whole, to go on from.
    left = list(tmp_path.iterdir())
    assert [path.name for path in left] in ([], ["out.resume.safetensors"])
    for path in left:
        with safe_open(path, "pt") as state:
            assert "state" in state.metadata()


def test_calibrate_writes_a_bundle_with_what_was_chosen(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    chosen = ("--method", "static", "--tune", "potential,bias", "--updates", "2", "--seed", "3", "--samples", "64")
    done = run(
        "calibrate", "digits", "--data", "digits", "--steps", "1", *chosen, "--golden", "8", "--out", out, "--json"
    )
    assert done.returncode == 0, done.stderr + done.stdout
    document = json.loads(done.stdout)
    assert (document["method"], document["num_timesteps"], document["parity"]) == ("static", 1, None)
    chosen_options = {"name": "static", "tune": ["potential", "bias"], "updates": 2, "seed": 3}
    assert document["calibration"] == {**Static().record(), **chosen_options}
    assert document["calibrated_timesteps"] == 1
    assert document["metrics"]["calibration_samples"] == 64
    assert [path.name for path in out.parent.iterdir()] == ["out"], "no state is left behind"
    assert run("verify", out).returncode == 0


def test_a_finished_calibration_outlives_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["calibrate", "digits", "--data", "digits", "--steps", "1", "--method", "static", "--updates", "2"]
    command += ["--samples", "64", "--golden", "4", "--json", "--out"]
    assert run(*command, tmp_path / "whole").returncode == 0
    with monkeypatch.context() as full:

        def fail(path: Path, *arguments: object) -> None:
            raise StorageError(f"{path} cannot be written: No space left on device.")

        full.setattr("cos_export.exporting.write_golden", fail)
        done = run(*command, tmp_path / "out")
        assert done.returncode == 1 and "No space left on device" in json.loads(done.stdout)["error"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.resume.safetensors", "whole"]
    with monkeypatch.context() as tuning:
        tuning.setattr("calibration.methods.static.Static.calibrate", None)
        assert run(*command, tmp_path / "out").returncode == 0, "nothing is tuned again"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
    for name in ("model.nir", "model.onnx", "golden.npz"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_calibrate_goes_on_from_a_bundle(tmp_path: Path) -> None:
    chosen = ["calibrate", "digits", "--data", "digits", "--samples", "64", "--golden", "8"]
    chosen += ["--method", "static", "--tune", "potential,bias,weight", "--updates", "2"]
    assert run(*chosen, "--steps", "1", "--out", tmp_path / "one").returncode == 0
    goes_on = [*chosen, "--steps", "2", "--out", str(tmp_path / "two"), "--json", "--start-from"]
    done = run(*goes_on, tmp_path / "one")
    assert done.returncode == 0, done.stderr + done.stdout
    assert json.loads(done.stdout)["calibration"]["start_from"] == fingerprint(load(tmp_path / "one").network)
    assert run(*goes_on, tmp_path / "one" / "model.nir").returncode == 0
    before = load(tmp_path / "two").manifest
    for start, message in ((tmp_path / "none", "does not exist"), (tmp_path, "is not a bundle")):
        refused = run(*goes_on, start)
        assert refused.returncode == 2 and message in json.loads(refused.stdout)["error"]
    assert load(tmp_path / "two").manifest == before


def test_other_data_to_calibrate_on_leave_all_of_the_first_to_measure_on(tmp_path: Path) -> None:
    images, labels = np.zeros((40, 1, 8, 8), np.float32), np.zeros(40, np.int64)
    np.savez(tmp_path / "few.npz", images=images, labels=labels)
    np.savez(tmp_path / "wide.npz", images=np.zeros((40, 1, 8, 9), np.float32), labels=labels)
    chosen = ("convert-and-export", "digits", "--steps", "1", "--golden", "4", "--out", tmp_path / "out", "--json")
    whole = ("--data", "digits", "--calibration-data")
    done = run(*chosen, *whole, tmp_path / "few.npz", "--samples", "33")
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)["metrics"]
    assert (metrics["calibration_samples"], metrics["samples"]) == (33, 500)
    refused = run(*chosen, *whole, tmp_path / "wide.npz")
    assert refused.returncode == 2 and "these have (32, 1, 8, 9)" in json.loads(refused.stdout)["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "static", "--tune", "delay"), "some of potential, threshold, bias, weight"),
        (("--method", "static", "--learning-rate", "0"), "static needs learning_rate > 0"),
        (("--method", "static", "--rho", "4"), "'static' has no --rho to choose"),
        (("--tune", "bias"), "--tune is an option of some methods: name one with --method"),
        (("--method", "mean-matching", "--tune", "bias"), "'mean-matching' has no --tune to choose. It has rounds"),
        (("--method", "half", "--seed", "1"), "'half' has no --seed to choose. It has no options"),
        (("--method", "cos", "--updates", "5"), "'cos' has no --updates to choose"),
    ],
)
def test_calibrate_refuses_what_a_method_does_not_have(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = run("calibrate", "digits", "--data", "digits", "--steps", "1", "--out", tmp_path / "out", *arguments)
    assert done.returncode == 2 and message in done.stderr
    assert not (tmp_path / "out").exists()


def test_train_writes_weights_that_convert(tmp_path: Path) -> None:
    out = tmp_path / "weights.safetensors"
    done = run("train", "digits", "--out", out, "--epochs", "1", "--flip", "--shift", "2", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert len(document["history"]) == 1
    assert {key: document["recipe"][key] for key in ("epochs", "flip", "shift")} == {
        "epochs": 1,
        "flip": True,
        "shift": 2,
    }
    converted = run(
        *("convert-and-export", "digits", "--weights", out, "--data", "digits", "--steps", "1", "--method", "half"),
        *("--golden", "4", "--out", tmp_path / "out", "--json"),
    )
    metrics = json.loads(converted.stdout)["metrics"]
    assert metrics["ann_accuracy"] == pytest.approx(document["test_accuracy"])


@pytest.mark.parametrize(("factory", "names"), [("mine:relu", ["layer_1"]), ("mine:Functional", ["relu", "relu_1"])])
def test_a_relu_network_is_fine_tuned_with_qcfs_and_converts(tmp_path: Path, factory: str, names: list[str]) -> None:
    (tmp_path / "mine.py").write_text(USER_MODULE.replace("nn.MaxPool2d(2)", "nn.AvgPool2d(2)"))
    tuned = run(
        *("train", factory, "--data", "digits", "--out", "tuned.safetensors", "--epochs", "1"),
        *("--swap-activations", "--levels", "8", "--json"),
        cwd=tmp_path,
    )
    assert tuned.returncode == 0, tuned.stderr
    weights = ("--weights", "tuned.safetensors")
    checked = run("check", factory, *weights, "--input-shape", "1,8,8", "--json", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr + checked.stdout
    done = run(
        *("convert-and-export", factory, *weights, "--data", "digits", "--steps", "2"),
        *("--method", "half", "--golden", "4", "--out", "out", "--json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    document = json.loads(done.stdout)
    assert [(layer["name"], layer["levels"]) for layer in document["layers"]] == [(name, 8) for name in names]
    assert document["metrics"]["ann_accuracy"] == pytest.approx(json.loads(tuned.stdout)["test_accuracy"])
    changed = USER_MODULE.replace("for layer in self.layers:", "for layer in self.layers[:1]:")
    (tmp_path / "mine.py").write_text(changed)
    refused = run("check", "mine:Functional", *weights, "--input-shape", "1,8,8", cwd=tmp_path)
    if factory == "mine:Functional":
        assert refused.returncode == 2 and "now only 1" in " ".join(refused.stdout.split())


def test_train_refuses_before_it_trains(tmp_path: Path) -> None:
    for out, message in (("w.bin", "written as .safetensors"), ("no/w.safetensors", "there is no folder")):
        done = run("train", "digits", "--out", tmp_path / out)
        assert done.returncode == 2 and message in done.stderr


def test_offset_spikes_are_counted_of_a_network_and_of_its_bundle(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "offsets.png"
    of_network = run("offsets", "digits", "--data", "digits", "--steps", "4", "--samples", "40", "--out", out, "--json")
    assert of_network.returncode == 0, of_network.stderr
    document = json.loads(of_network.stdout)
    assert document["samples"] == 40 and out.read_bytes().startswith(b"\x89PNG")
    before, after = (document["layers"]["act4"][k] for k in ("0", "1"))
    assert before["no_offset"] < after["no_offset"] and before["mse"] > after["mse"]
    of_bundle = run("offsets", bundle, "--data", "digits", "--steps", "4", "--samples", "40", "--out", out, "--json")
    assert json.loads(of_bundle.stdout)["layers"] == document["layers"]
    table = run("offsets", bundle, "--data", "digits", "--samples", "10", "--out", out)
    printed = " ".join(table.stdout.split())  # a title with a long path goes over several lines
    assert table.returncode == 0 and "T = 2" in printed and "act4" in printed
    out.unlink()
    for destination, steps, message in (
        (out, [], "Say for how many steps"),
        (tmp_path / "offsets.pdf", ["--steps", "4"], "ends otherwise"),
        (tmp_path / "no" / "o.png", ["--steps", "4"], "there is no folder"),
    ):
        refused = run("offsets", "digits", *steps, "--out", destination, "--data", "digits")
        assert refused.returncode == 2 and message in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_network_and_its_bundle_are_analysed(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "analysis.png"
    given = ("--data", "digits", "--samples", "40")
    of_network = run("analyze", "digits", *given, "--steps", "2", "--out", out, "--json")
    assert of_network.returncode == 0, of_network.stderr
    document = json.loads(of_network.stdout)
    assert document["samples"] == 40 and document["schedule"] == "synchronous" and document["method"] == "half"
    assert out.read_bytes().startswith(b"\x89PNG")
    # Trained with 4 levels: 8 make fewer errors than 2, and layer after layer there is no timing.
    finer = json.loads(run("analyze", "digits", *given, "--steps", "8", "--json").stdout)
    later = json.loads(run("analyze", "digits", *given, "--steps", "2", "--schedule", "layerwise", "--json").stdout)
    for name, layer in document["layers"].items():
        assert layer["trained_clipped"] and layer["local"]["levels"] > finer["layers"][name]["local"]["levels"] > 0
        assert later["layers"][name]["own"]["timing"] == 0
    assert document["layers"]["act4"]["local"]["timing"] > 0 and later["schedule"] == "layerwise"
    of_bundle = run("analyze", bundle, *given)
    assert of_bundle.returncode == 0 and "act4" in of_bundle.stdout and "costs most" in of_bundle.stdout
    out.unlink()
    for wrong, message in (
        (["digits"], "Say for how many steps"),
        (["digits", "--steps", "4", "--out", tmp_path / "analysis.pdf"], "ends otherwise"),
        (["digits", "--steps", "4", "--out", tmp_path / "no" / "a.png"], "there is no folder"),
        (["digits", "--steps", "4", "--schedule", "none"], "--schedule"),
    ):
        refused = run("analyze", *wrong, "--data", "digits")
        assert refused.returncode == 2 and message in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_targets_are_listed() -> None:
    done = run("targets", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0 and tuple(document) == targets.names()
    assert document["onnxruntime"]["ready"] and document["onnxruntime"]["version"].startswith("onnxruntime")


def test_help_has_an_example_for_every_command() -> None:
    listed = "convert-and-export calibrate check verify run search analyze offsets report train code golden targets"
    for command in listed.split():
        done = run(command, "--help")
        assert done.returncode == 0 and f"cos-export {command}" in " ".join(done.stdout.split()), command


def test_a_file_that_hides_our_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "calibration.py").write_text("VALUE = 1\n")
    done = subprocess.run(
        [sys.executable, "-c", "import cos_export"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert str(tmp_path / "calibration.py") in done.stderr and "is hidden by" in done.stderr


@pytest.mark.parametrize("name", ["calibration", "targets", "cli"])
def test_a_users_own_file_that_hides_ours_from_the_command_is_one_error(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("print('not to be run')\n")
    done = subprocess.run(
        [sys.executable, "-m", "cos_export", "targets", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (2, "")
    assert f"is hidden by {tmp_path / name}.py: rename that" in json.loads(done.stdout)["error"]


def test_a_layerwise_conversion_from_the_command_to_the_run(tmp_path: Path) -> None:
    done = run(
        *("convert-and-export", "digits", "--data", "digits", "--steps", "2", "--method", "half", "--json"),
        *("--schedule", "layerwise", "--targets", "pytorch,onnxruntime", "--out", tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["schedule"] == "layerwise"
    assert all(row["schedule"] == "layerwise" for row in manifest["metrics"]["methods"])
    again = run("run", tmp_path / "out", "--data", "digits", "--target", "onnxruntime", "--json")
    assert again.returncode == 0
    assert load(tmp_path / "out").network.schedule == "layerwise"
    manifest["schedule"] = "synchronous"
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    contradicted = run("run", tmp_path / "out", "--data", "digits", "--json")
    assert contradicted.returncode == 2 and "schedule" in json.loads(contradicted.stdout)["error"]


@pytest.mark.parametrize("method", ["cos", "srp", "ftbc", "rmp"])
def test_a_method_without_a_layerwise_meaning_is_refused_before_any_work(tmp_path: Path, method: str) -> None:
    done = run(
        *("convert-and-export", "digits", "--data", "digits", "--steps", "2", "--method", method),
        *("--schedule", "layerwise", "--out", tmp_path / "out"),
    )
    assert done.returncode == 2 and "layer-wise" in done.stderr and not (tmp_path / "out").exists()
