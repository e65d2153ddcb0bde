from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import cos_export as ce

# What the interface file does not list: names are made on request, and one has gone.
PACKAGE: Any = ce


def test_every_public_name_is_there() -> None:
    for name in PACKAGE.__all__:
        assert getattr(ce, name).__name__.lstrip("_") == name
        assert name in dir(ce)
    assert {"calibrate", "capture", "export", "load", "simulate", "verify", "SpikingNetwork"} <= set(PACKAGE.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = PACKAGE.nothing


def test_every_method_is_public() -> None:
    from calibration import METHODS

    public = {getattr(ce, name) for name in PACKAGE.__all__}
    assert set(METHODS.values()) <= public
    assert {ce.Static, ce.Half, ce.MeanMatching} <= set(METHODS.values())


def test_the_import_is_quick_and_the_name_of_before_warns() -> None:
    quick = "import cos_export, sys; assert 'torch' not in sys.modules; from cos_export import *; assert COS and Static"
    assert subprocess.run([sys.executable, "-c", quick], check=False).returncode == 0
    with pytest.warns(DeprecationWarning, match=r"cos_export\.ann_logits"):
        assert PACKAGE.activate is ce.ann_logits
