"""Runs the traced graph of a module over images, and shows the input of each ReLU that needs a threshold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from cos_export.capturing.findings import blockers, explain
from cos_export.capturing.operators.rectifiers import rectifier_bound, rectifier_keys
from cos_export.capturing.options import Options
from cos_export.capturing.tracing import Traced
from cos_export.capturing.walk import walk
from cos_export.datasets import ImageArray
from cos_export.device import full_precision
from cos_export.errors import CaptureError
from cos_export.progress import Progress

__all__ = ["Observed", "observed_relus"]

Watcher = Callable[[str, Tensor], None]
"""Told (key, input of the ReLU (batch, channels, ...)) for each batch."""


@dataclass(frozen=True)
class Observed:
    """The ReLUs of a module that need a threshold, and how to watch them.

    Attributes:
        keys: What the user calls them, in the order in which they run.
        traced: The graph that they are in.
        device: Where it runs.
    """

    keys: tuple[str, ...]
    traced: Traced
    device: torch.device

    def run(self, images: ImageArray, watch: Watcher, *, batch_size: int, stage: str, progress: Progress) -> None:
        """One pass over `images`.

        Args:
            images: (samples, ...) on the host.
            watch: Told of each ReLU's input, batch by batch; it must not keep it, for it may be overwritten.
            batch_size: Samples computed at once.
            stage: What to call it.
            progress: Told of each batch.
        """
        nodes = {node: key for node, key in rectifier_keys(self.traced).items() if key in self.keys}
        held = {node: tensor.detach().to(self.device) for node, tensor in self.traced.constants.items()}
        with torch.no_grad(), full_precision():
            done = 0
            for batch, valid in self._batches(images, batch_size):
                progress(stage, done, len(images))
                _Watching(self, nodes, watch, valid).feed({**held, self.traced.input: batch})
                done += valid
            progress(stage, len(images), len(images))

    def _batches(self, images: ImageArray, batch_size: int) -> Iterator[tuple[Tensor, int]]:
        """Batches, and how many samples of each count: where forward fixed the batch size, the last is filled up."""
        fixed = int(self.traced.batch) if self.traced.batch.isdigit() else None
        size = fixed or batch_size
        for start in range(0, len(images), size):
            batch = torch.from_numpy(images[start : start + size]).to(self.device)
            valid = len(batch)
            if fixed is not None and valid < fixed:
                batch = torch.cat([batch, batch[:1].expand(fixed - valid, *batch.shape[1:])])
            # The graph may write to its input in place, and a whole batch may be the caller's own memory.
            yield batch.clone(), valid


def observed_relus(traced: Traced, options: Options, device: torch.device) -> Observed:
    """The ReLUs of a module that have no upper bound.

    Args:
        traced: The module's graph.
        options: As they will be for the capture; thresholds may be missing.
        device: Where to run.

    Raises:
        CaptureError: The module cannot be captured for another reason than missing thresholds.
    """
    findings = walk(traced, options).findings
    if blockers(findings):
        raise CaptureError(explain(type(traced.module).__name__, findings))
    keys = tuple(key for node, key in rectifier_keys(traced).items() if math.isinf(rectifier_bound(node) or 0.0))
    return Observed(keys, traced, device)


class _Watching(fx.Interpreter):
    """Runs a graph on a device, and shows a watcher the inputs of some nodes."""

    def __init__(self, observed: Observed, nodes: Mapping[fx.Node, str], watch: Watcher, valid: int) -> None:
        super().__init__(nn.Module(), graph=observed.traced.graph)
        self._device, self._nodes, self._watch, self._valid = observed.device, nodes, watch, valid

    def feed(self, placeholders: Mapping[fx.Node, Tensor]) -> None:
        """Runs it once, each placeholder holding its tensor."""
        # What is not a tensor (a token, an unused constant) is never read, but has a place.
        self.run(*[placeholders.get(node) for node in self.graph.nodes if node.op == "placeholder"])

    def run_node(self, n: fx.Node) -> Any:
        """Runs one node, after its input was shown."""
        if n in self._nodes:
            self._watch(self._nodes[n], self.env[n.all_input_nodes[0]][: self._valid])
        return super().run_node(n)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls an operator, on this device where the trace says another."""
        moved = tuple(self._here(argument) for argument in args)
        return super().call_function(target, moved, {key: self._here(value) for key, value in kwargs.items()})

    def _here(self, argument: Any) -> Any:
        return self._device if isinstance(argument, torch.device) else argument
