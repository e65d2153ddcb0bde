"""JSON of strangers: plain values, finite numbers, each key once, no deeper and larger than anything of ours."""

from __future__ import annotations

import json
import os
from typing import Any, NoReturn

from cos_export.errors import InputError
from cos_export.reading.limits import MAX_JSON, MAX_JSON_DEPTH
from cos_export.reading.plain_file import read_plain

__all__ = ["parse_json", "read_json"]


def read_json(path: str | os.PathLike[str], *, links: bool = True) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: It is not a regular file of valid JSON within the limits (`parse_json`).
    """
    return parse_json(read_plain(path, MAX_JSON, links=links), str(path))


def parse_json(text: str | bytes, where: str) -> Any:
    """The value of a JSON document.

    Args:
        text: The document; bytes in UTF-8.
        where: What to call it in messages.

    Raises:
        InputError: It is not valid JSON, has a number that is not finite or a key twice in one object, or is larger
            or deeper than `limits` allows.
    """
    if len(text) > MAX_JSON:
        raise InputError(f"{where} has {len(text):,} bytes of JSON, and may have {MAX_JSON:,}.")
    try:
        document = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(document, object_pairs_hook=_once, parse_constant=_not_finite, parse_float=_finite)
    except RecursionError as error:
        raise InputError(f"{where} is nested deeper than {MAX_JSON_DEPTH} levels.") from error
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {error}.") from error
    _check_depth(value, where)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)[:80]!r} stands twice")
    return document


def _not_finite(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is not a finite number")


def _finite(literal: str) -> float:
    value = float(literal)
    return value if value - value == 0 else _not_finite(literal[:80])


def _check_depth(value: Any, where: str) -> None:
    level = [value]
    for _ in range(MAX_JSON_DEPTH + 1):
        held = [item for item in level if isinstance(item, (dict, list))]
        if not held:
            return
        level = [inner for item in held for inner in (item.values() if isinstance(item, dict) else item)]
    raise InputError(f"{where} is nested deeper than {MAX_JSON_DEPTH} levels.")
