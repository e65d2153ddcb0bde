"""Nothing leaves the machine: what libraries would tell their makers is switched off."""

from __future__ import annotations

import os

__all__ = ["switch_off"]


def switch_off() -> None:
    """Keeps ONNX Runtime from writing a device id and a queue of events to the user's cache and from sending them.

    It reads the variable while it is imported, and `disable_telemetry_events()` comes too late. The processes that this
    one starts inherit it.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
