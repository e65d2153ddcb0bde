"""Lets every test import this tree, and what tests share in `tests/helpers`."""

import sys
from pathlib import Path

_TESTS = Path(__file__).parent

if str(_TESTS.parent) not in sys.path:
    sys.path.insert(0, str(_TESTS.parent))
sys.path.append(str(_TESTS / "helpers"))
