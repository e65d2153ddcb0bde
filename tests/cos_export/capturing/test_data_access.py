"""What forward does through the .data of a tensor is refused in words of ours, at its line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cos_export.capturing import capture, check_model
from cos_export.errors import CaptureError
from cos_export.qcfs import QCFS


class Net(nn.Module):
    def __init__(self, change: Callable[[Net, Tensor, Tensor], object]) -> None:
        super().__init__()
        self.fc, self.act, self.change = nn.Linear(4, 4), QCFS(4, 1.0), change

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x)
        self.change(self, x, y)
        result: Tensor = self.act(y)
        return result


def scaled(net: Net, x: Tensor, y: Tensor) -> None:
    y.data.mul_(2)  # of an activation


def set_anew(net: Net, x: Tensor, y: Tensor) -> None:
    y.data = y * 2


def scaled_weight(net: Net, x: Tensor, y: Tensor) -> None:
    net.fc.weight.data.mul_(2)


def set_weight_anew(net: Net, x: Tensor, y: Tensor) -> None:
    net.fc.weight.data = net.fc.weight * 2


def scaled_input(net: Net, x: Tensor, y: Tensor) -> None:
    x.data.div_(16)


@pytest.mark.parametrize("change", [scaled, set_anew, scaled_weight, set_weight_anew, scaled_input])
def test_it_is_named_with_its_line(change: Callable[[Net, Tensor, Tensor], object]) -> None:
    model, example = Net(change), torch.rand(1, 4)
    weight, image = model.fc.weight.clone(), example.clone()
    [finding] = [finding for finding in check_model(model, example).findings if finding.blocker]
    line = change.__code__.co_firstlineno + 1
    assert finding.line is not None and f"test_data_access.py:{line}: " in finding.line and ".data" in finding.line
    assert finding.blocker is not None
    assert ".data of a tensor" in finding.blocker or "forward keeps state" in finding.blocker
    with pytest.raises(CaptureError, match=f"test_data_access.py:{line}"):
        capture(model, example)
    assert torch.equal(model.fc.weight, weight) and torch.equal(example, image)


def test_reading_it_alone_is_named_where_it_cannot_be_traced() -> None:
    model, example = Net(lambda net, x, y: y.data.sum()), torch.rand(1, 4)
    [finding] = check_model(model, example).blockers
    assert finding.line is not None and finding.line.endswith("y.data.sum()), torch.rand(1, 4)")
    assert ".data of a tensor" in str(finding.blocker)
