"""Where forward goes behind PyTorch's back: through the .data of a tensor, which torch.export does not follow."""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cos_export.capturing.findings import Finding
from cos_export.user_code import Place, calling_place, exits_raise, is_users, line_at

__all__ = ["DataWatch", "data_access"]


_DATA: Any = Tensor.data


class DataWatch(TorchFunctionMode):
    """Notes the user's lines at which the .data of a tensor is first read, and first set."""

    def __init__(self) -> None:
        super().__init__()
        self.read: Place | None = None
        self.set: Place | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Looks at what is called, then calls it."""
        # PyTorch itself goes through .data where it makes the parameters of a lazy module.
        if is_users(sys._getframe(1).f_code.co_filename):
            if self.read is None and func == _DATA.__get__:
                self.read = calling_place()
            if self.set is None and func == _DATA.__set__:
                self.set = calling_place()
        return func(*args, **(kwargs or {}))

    def finding(self) -> Finding | None:
        """A finding that blocks, at the line that sets .data or else at that which reads it; None if none does."""
        place = self.set or self.read
        if place is None:
            return None
        return Finding(
            "",
            "data",
            line_at(place),
            "",
            "forward goes through the .data of a tensor, which torch.export does not follow: what is written there "
            "would be missing from a capture",
            "compute a new tensor (y = y * 2), or change weights once before the capture",
        )


def data_access(model: nn.Module, example: Tensor) -> Finding | None:
    """What `DataWatch` finds when forward runs.

    Args:
        model: Left as it is; a copy of it runs on `example`.
        example: An input.
    """
    watch, other, given = DataWatch(), copy.deepcopy(model).cpu().eval(), example.clone()
    try:
        with exits_raise(), torch.no_grad(), watch:
            other(given)
    except (Exception, SystemExit):  # noqa: BLE001 - what forward raises is told by what called this
        return None
    return watch.finding()
