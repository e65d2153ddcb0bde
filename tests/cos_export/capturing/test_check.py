"""The check is total: every finding, each at its place, and never a traceback."""

import json

import numpy as np
import pytest
import torch
from capturing_proof import randomise
from narrowing import present
from rich.console import Console
from torch import nn
from torch.nn import functional as F

import cos_export as ce
from cos_export.capturing import check_model
from cos_export.capturing.findings import Finding
from cos_export.capturing.operators import registry
from cos_export.errors import InputError
from cos_export.qcfs import QCFS
from cos_export.terminal.check_table import check_table


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.pool = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2)
        self.act, self.head = QCFS(4), nn.Linear(36, 3)

    def forward(self, x):
        x = self.pool(self.relu(self.conv(x)))
        return self.head(self.act(torch.sigmoid(x)).flatten(1))


X = np.zeros((1, 2, 8, 8), np.float32)


def test_every_operation_has_a_finding_and_every_blocker_a_place_and_a_remedy():
    result = check_model(Net(), X)
    assert not result.passed
    listed = [(f.module, f.op, f.blocker is not None) for f in result.findings]
    assert listed == [
        ("conv", "conv2d", False),
        ("relu", "relu", True),
        ("pool", "max_pool2d", False),
        ("", "sigmoid", True),
        ("act", "qcfs", False),
        ("", "flatten", False),
        ("head", "linear", False),
    ]
    for finding in result.blockers:
        assert finding.fix
        assert present(finding.line).startswith(f"{__file__}:")


def test_what_comes_later_is_assumed():
    result = check_model(Net(), X, max_pool="average", assume_thresholds=True)
    assert [f.op for f in result.blockers] == ["sigmoid"]
    assert [f.op for f in result.warnings] == ["relu", "max_pool2d"]


def test_it_passes_exactly_when_capture_does():
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 4), nn.ReLU(), nn.Linear(4, 3))
    assert not check_model(model, X).passed
    assert check_model(model, X, thresholds={"2": 1.0}).passed
    assert ce.capture(model, X, thresholds={"2": 1.0}).layers == ("layer_2",)


def test_as_json():
    document = json.loads(json.dumps(check_model(Net(), X).to_dict()))
    assert document["passed"] is False
    assert (document["blockers"], document["warnings"]) == (2, 0)
    assert document["findings"][1]["module"] == "relu"
    assert set(document["findings"][0]) == {"module", "op", "line", "becomes", "blocker", "fix", "warning"}


def test_as_a_table():
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    result = check_model(Net(), X, max_pool="average")
    console.print(check_table(result, "Net"))
    text = console.export_text()
    assert "2 of 7 operations block" in text
    assert "max_pool2d" in text
    assert "relu_thresholds" in text.replace("\n", "").replace(" ", "")
    assert max(map(len, text.splitlines())) <= 80
    passed = nn.Sequential(nn.Flatten(), nn.Linear(128, 4), nn.ReLU6(), nn.Linear(4, 3))
    console.print(check_table(check_model(passed, X), "Passed [odd] name"))
    text = console.export_text()
    assert "nothing blocks" in text
    assert "Passed [odd] name" in text


def test_markup_in_a_users_line_is_shown_as_it_is():
    finding = Finding("a[/b]", "op", "file.py:1: x[bold]", "", "because [red]", "use [/]")
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(check_table(ce.CheckResult((finding,)), "x"))
    text = console.export_text()
    assert "a[/b]" in text and "x[bold]" in text and "[red]" in text and "[/]" in text


def test_what_is_said_often_is_said_once_with_all_places():
    layers = [layer for _ in range(6) for layer in (nn.Linear(4, 4), nn.ReLU())]
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 4), nn.Tanh(), *layers)
    with pytest.raises(ce.CosExportError) as raised:
        ce.capture(model, X)
    text = str(raised.value)
    assert "7 things must change" in text
    assert text.count("needs a threshold") == 1
    assert "also 6, 8, 10, 12, 14" in text
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(check_table(check_model(model, X), "often"))
    text = console.export_text()
    assert text.count("needs a threshold") == 1
    assert "also 6, 8, 10, 12, 14" in text


def test_a_program_that_was_exported_before(tmp_path):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv2d(2, 4, 3), nn.ReLU6()

        def forward(self, x):
            return F.relu6(self.act(self.conv(x)) * 0.5)

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.block, self.norm, self.head = Block(), nn.BatchNorm2d(4), nn.Linear(144, 3)

        def forward(self, x):
            return self.head(self.norm(self.block(x) * 2).flatten(1))

    model = randomise(Whole().eval())
    x = torch.rand(4, 2, 8, 8) * 8 - 4
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    network = ce.capture(loaded, x)
    np.testing.assert_allclose(ce.ann_logits(network, x, device="cpu"), model(x).detach().numpy(), atol=1e-4)
    assert network.layers == ("block_act", "block_relu6")


# --- whatever happens ---------------------------------------------------------------------------------


class Raises(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


class Uncopied(nn.Module):
    def __deepcopy__(self, memo):
        raise TypeError("no copies")


class NumPy(nn.Module):
    def forward(self, x):
        return torch.from_numpy(x.detach().numpy() * 2)


class DataDependent(nn.Module):
    def forward(self, x):
        return x[x > 0].reshape(x.shape[0], -1)


class Strings(nn.Module):
    def forward(self, x):
        return {"logits": x.flatten(1), "name": "x"}


class Nothing(nn.Module):
    def forward(self, x):
        return None


class Loop(nn.Module):
    def forward(self, x):
        while x.abs().max() > 1:
            x = x / 2
        return x


class Complex(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x.flatten(1)).abs()


class Sparse(nn.Module):
    def forward(self, x):
        return (x.flatten(1).to_sparse() * 2).to_dense()


class Indices(nn.Module):
    def forward(self, x):
        values, indices = F.max_pool2d(F.relu6(x), 2, return_indices=True)
        return F.max_unpool2d(values, indices, (2, 2)).flatten(1)


class TopK(nn.Module):
    def forward(self, x):
        return torch.topk(F.relu6(x).flatten(1), 3).values


class Eye(nn.Module):
    def forward(self, x):
        x = F.relu6(x.flatten(1))
        return x @ torch.eye(128) @ x.t() @ x


class Batch(nn.Module):
    def forward(self, x):
        return F.relu6(x).flatten(1).t().mean(1, keepdim=True)


ODD = [
    *(Raises(error) for error in (ValueError("why"), KeyError("key"), AssertionError(), RuntimeError("a\nb"))),
    *(Uncopied(), NumPy(), DataDependent(), Strings(), Nothing(), Loop(), Complex(), Sparse(), Indices(), TopK()),
    *(Eye(), Batch(), nn.Sequential(), nn.Identity(), nn.MultiheadAttention(8, 2), nn.Embedding(4, 4)),
    *(nn.LSTM(8, 4), nn.Bilinear(8, 8, 2)),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", ODD, ids=lambda module: type(module).__name__)
def test_odd_modules_are_findings(module):
    result = check_model(module, X)
    assert result.blockers
    assert all(f.fix and "\n" not in present(f.blocker) for f in result.blockers)
    assert "report this model" not in str(result.to_dict())


def test_the_tracer_prints_nothing(capfd):
    check_model(Loop(), X)
    assert capfd.readouterr() == ("", "")


def test_a_conversion_that_fails_is_a_finding_too(monkeypatch):
    def broken(call):
        raise IndexError("no such thing")

    monkeypatch.setitem(registry.OPERATORS, "aten.conv2d.default", broken)
    (finding, *_) = check_model(Net(), X).blockers
    assert finding.blocker == "its conversion failed (IndexError: no such thing)"
    assert finding.module == "conv"


def test_a_walk_that_fails_is_a_finding_too(monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr("cos_export.capturing.checking.walk", broken)
    (finding,) = check_model(Net(), X).findings
    assert "the check itself failed (ZeroDivisionError)" in present(finding.blocker)


def test_wrong_arguments_are_errors():
    with pytest.raises(InputError, match="uint8 or of a float type"):
        check_model(Net(), X.astype(np.int64))
    with pytest.raises(InputError, match="no ReLU 'nowhere'"):
        check_model(Net(), X, thresholds={"nowhere": 1.0})
