"""A calibration that is killed and goes on, beside one that nothing interrupts."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibration import StaticMethod, calibrate
from calibration.checkpoint import Checkpoint
from cos_export.datasets import Images
from cos_export.network import SpikingNetwork


def whole_and_resumed(
    network: SpikingNetwork,
    images: Images,
    method: str | StaticMethod,
    kept: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: int = 2,
) -> tuple[SpikingNetwork, SpikingNetwork]:
    """What comes of a whole calibration, and of one that is killed as its first stage ends and then goes on.

    Its state is kept after each piece of work, however short that was.
    """
    original = Checkpoint.__init__
    monkeypatch.setattr(Checkpoint, "__init__", lambda self, path, given: original(self, path, given, every=0.0))

    def kill(stage: str, done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    whole = calibrate(network, images, method, steps)
    with pytest.raises(KeyboardInterrupt):
        calibrate(network, images, method, steps, resume=kept, progress=kill)
    return whole, calibrate(network, images, method, steps, resume=kept)
