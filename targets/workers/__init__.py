"""Targets whose software lives in an environment of its own and runs as a process of its own: what they share.

`software` says what such a target is, `installation` makes its environment, `environment` finds it, `supervisor` runs
a job in it and leaves nothing behind, and `results` reads what came of it. `worker/` is the other side: modules that
every worker imports, in the environment's own Python.
"""
