"""The target `c`: the network's C code, compiled and run here."""

from targets.c.c_target import CTarget
from targets.c.self_test import Flash, code_bytes, run_self_test

__all__ = ["CTarget", "Flash", "code_bytes", "run_self_test"]
