"""The keys of a state dict, brought to a network's own names where that changes no number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

__all__ = ["THRESHOLD_NAMES", "complete", "matched", "prefix_hint"]

State = dict[str, Tensor]

_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""Of data-parallel training, of torch.compile, and of the attribute that a Lightning module keeps its network in."""

_WRAPPERS = ("module", "_orig_mod")
"""What the first two put into the path of a part that was wrapped alone."""

THRESHOLD_NAMES = ("threshold", "up", "thresh")
"""What we, published COS and SRP, and published QCFS checkpoints call the threshold of an activation."""

_ACTIVATION_NAMES = ("act", "relu")
"""What published QCFS, and COS and SRP checkpoints call the activation behind a residual sum."""

_COUNTER = "num_batches_tracked"
"""Batch norm's count of the batches that it was trained on, which no result in eval mode depends on."""


def matched(given: State, expected: Mapping[str, Tensor]) -> tuple[State, tuple[str, ...]]:
    """The state under the network's names, and what was done to it, in words, beyond other names of thresholds.

    Prefixes and wrappers are left out, and masks of pruning multiplied into their weights, only if all keys are those
    of the network then.

    Args:
        given: The file's.
        expected: The network's.
    """
    for inside, bare in _without_wrappers(given):
        for prefix, stripped in _without_prefixes(bare):
            for masked, dense in _without_masks(stripped):
                state = _with_thresholds(dense, expected)
                if complete(state, expected):
                    notes = (
                        f"every key begins with {prefix!r}, which was left out" if prefix else "",
                        f"{' and '.join(map(repr, inside))} within keys was left out" if inside else "",
                        f"the masks of {masked} pruned tensors were multiplied into them" if masked else "",
                    )
                    return state, tuple(note for note in notes if note)
    return _with_thresholds(given, expected), ()


def complete(state: State, expected: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of the network; old checkpoints lack batch norm's counters."""
    return state.keys() <= expected.keys() and all(
        key in state or key.rpartition(".")[2] == _COUNTER for key in expected
    )


def prefix_hint(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """Says so where some keys would be the network's without a prefix, and others would not."""
    for prefix in _PREFIXES:
        fitting = [key for key in given if key.startswith(prefix) and key.removeprefix(prefix) in expected]
        if fitting and len(fitting) > sum(key in expected for key in given):
            return (
                f"Without the prefix {prefix!r} {len(fitting)} of the file's {len(given)} keys are among the network's "
                f"{len(expected)}. Save those alone: {{key.removeprefix({prefix!r}): value for key, value in "
                f"state.items() if key.startswith({prefix!r})}}."
            )
    return None


def _without_prefixes(state: State) -> Iterator[tuple[str, State]]:
    """The state as it is, and without each chain of prefixes that all of its keys have."""
    prefix = ""
    yield prefix, state
    while state and (common := next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), None)):
        prefix, state = prefix + common, {key.removeprefix(common): value for key, value in state.items()}
        yield prefix, state


def _without_wrappers(state: State) -> Iterator[tuple[list[str], State]]:
    yield [], state
    found = [name for name in _WRAPPERS if any(name in key.split(".")[:-1] for key in state)]
    bare = {".".join(part for part in key.split(".") if part not in _WRAPPERS): value for key, value in state.items()}
    if found and len(bare) == len(state):
        yield found, bare


def _without_masks(state: State) -> Iterator[tuple[int, State]]:
    """The state as it is, and with weight = weight_orig * weight_mask, as torch.nn.utils.prune computes it."""
    yield 0, state
    names = [key.removesuffix("_mask") for key in state if key.endswith("_mask")]
    pruned = {name for name in names if f"{name}_orig" in state}
    if pruned:
        parts = {f"{name}{suffix}" for name in pruned for suffix in ("_orig", "_mask")}
        dense = {key: value for key, value in state.items() if key not in parts}
        for name in pruned:
            original = state[f"{name}_orig"]
            dense[name] = state[f"{name}_mask"].to(original.dtype) * original
        yield len(pruned), dense


def _with_thresholds(given: State, expected: Mapping[str, Tensor]) -> State:
    """The state with the network's names and shapes of thresholds, where it has them under others."""
    state = {}
    for key, value in given.items():
        names = () if key in expected else _threshold_names(key)
        name = next((name for name in names if name in expected and name not in given), key)
        one = name in expected and name.rpartition(".")[2] in THRESHOLD_NAMES
        if one and value.numel() == expected[name].numel() == 1:
            value = value.reshape(expected[name].shape)
        state[name] = value
    return state


def _threshold_names(key: str) -> list[str]:
    """Other names of a threshold: first those of the same module."""
    *owner, last = key.split(".")
    if last not in THRESHOLD_NAMES:
        return []
    owners = [owner]
    if owner and owner[-1] in _ACTIVATION_NAMES:
        owners += [[*owner[:-1], name] for name in _ACTIVATION_NAMES if name != owner[-1]]
    return [".".join([*path, name]) for path in owners for name in THRESHOLD_NAMES]
