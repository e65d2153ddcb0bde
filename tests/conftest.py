"""Lets every test import this tree, and the helpers that lie beside the tests."""

import sys
from pathlib import Path

_TESTS = Path(__file__).parent

if str(_TESTS.parent) not in sys.path:
    sys.path.insert(0, str(_TESTS.parent))
# At the end: the folders tests/cos_export and tests/targets must not stand before the packages of those names.
sys.path.append(str(_TESTS))
