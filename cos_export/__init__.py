"""From a trained PyTorch network to calibrated integrate-and-fire neurons, as NIR and ONNX, with proof.

    import cos_export as ce
    network = ce.capture(model, example_input)
    network = ce.calibrate(network, images, method="mean-matching", steps=4)
    trace = ce.simulate(network, images, steps=4)
    bundle = ce.export(network, "out/", steps=4, golden=images[:64])
    result = ce.verify(bundle, targets=["onnxruntime", "lava"])

Names are imported when they are first used, so that `import cos_export` is quick.
"""

from __future__ import annotations

import ast
import json
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from cos_export import telemetry
from cos_export.version import __version__ as __version__

telemetry.switch_off()


def _public_names() -> dict[str, str]:
    """The modules that the public names live in, by name: each is written once, in `__init__.pyi`."""
    stub = Path(__file__).with_suffix(".pyi")
    imports = [line for line in ast.parse(stub.read_text("utf-8")).body if isinstance(line, ast.ImportFrom)]
    return {entry.name: str(line.module) for line in imports for entry in line.names if entry.name != "__version__"}


_HOMES = _public_names()

__all__ = sorted(_HOMES)

_RENAMED = {"activate": "ann_logits"}
"""Names of the version before, each with its new one; they go in the next version."""


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(f"cos_export.{name} is now cos_export.{new}.", DeprecationWarning, stacklevel=2)
        return getattr(import_module(__name__), new)
    if name not in _HOMES:
        raise AttributeError(f"module 'cos_export' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_AS_COMMAND = sys.argv[:1] == ["-m"] and ("-m", __name__) in pairwise(sys.orig_argv)
"""Whether this is the start of `python -m cos_export`."""


def _check_for_shadow(name: str, file: str) -> None:
    """Notices a user's own `calibration.py`, `targets.py` or `cli.py` that would be imported in place of ours.

    Raises:
        ImportError: There is one.
        SystemExit: There is one, and this is `python -m cos_export`, where a traceback would help nobody.
    """
    home = Path(__file__).resolve().parent.parent
    spec = find_spec(name)
    found = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
    if found == home / file:
        return
    seen = "is not installed beside it" if found is None else f"is hidden by {found}: rename that"
    message = f"cos_export needs its own {name!r}, which {seen}."
    if not _AS_COMMAND:
        raise ImportError(message)
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps({"error": message, "exit_code": 2}, indent=2) + "\n")
    else:
        sys.stderr.write(f"error: {message}\n")
    raise SystemExit(2)


_check_for_shadow("calibration", "calibration/__init__.py")
_check_for_shadow("targets", "targets/__init__.py")
if _AS_COMMAND:
    # The command line alone needs it, and a user's program may well be called cli.py.
    _check_for_shadow("cli", "cli.py")
