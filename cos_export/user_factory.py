"""What a user's own function returns, named as package.module:factory: a network or a data set."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from cos_export.errors import InputError
from cos_export.user_code import user_code

__all__ = ["from_factory"]

_OURS = ("calibration", "cli", "targets")
"""Top-level names of this package: whoever imports them gets ours."""


def from_factory(spec: str, kind: str = "network", example: str = "make_network") -> Any:
    """What the function called `spec` returns.

    Args:
        spec: package.module:factory. Modules in the current folder are found.
        kind: What it is to return, in words.
        example: What such a function may be called.

    Raises:
        InputError: It is not spelled like that, there is no such function, or it fails.
    """
    module_name, attribute = _parts(spec, example)
    folder = Path.cwd()
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    hidden = _hidden(folder)
    try:
        users = _imported(spec, module_name, folder)
        _check_not_hidden(spec, users, hidden)
        return _made(spec, _factory(spec, users, attribute, kind))
    except InputError as error:
        named = {name: path for name, path in hidden.items() if re.search(rf"\b{name}\b", str(error))}
        if named and "in place of" not in str(error):
            raise InputError(f"{error}\n  {_rename(named)}") from error
        raise


def _parts(spec: str, example: str) -> tuple[str, str]:
    module_name, _, attribute = spec.rpartition(":")
    path = Path(module_name)
    if path.suffix != ".py" and all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        return module_name, attribute
    if path.suffix == ".py" or len(path.parts) > 1:
        stem = path.with_suffix("") if path.suffix == ".py" else path
        inside = all(part.isidentifier() for part in stem.parts)
        dotted = ".".join(stem.parts) if inside else stem.name
        where = "" if inside else f" in the folder {stem.parent}"
        raise InputError(
            f"{spec!r} names a file. Name the module as Python imports it{where}: {dotted}:{attribute or example}."
        )
    raise InputError(
        f"{spec!r} is not spelled package.module:factory, such as my_package.my_module:{example}: the name of a module "
        "as Python imports it, a colon, and the name of a function in it, without parentheses."
    )


def _imported(spec: str, name: str, folder: Path) -> ModuleType:
    try:
        with user_code(f"{spec!r} cannot be imported"):
            module = importlib.import_module(name)
    except InputError as error:
        cause = error.__cause__
        if not isinstance(cause, ModuleNotFoundError):
            raise
        missing = cause.name or ""
        if missing and f"{name}.".startswith(f"{missing}."):
            raise InputError(
                f"{spec!r} cannot be imported: {cause}. Run the command where {missing!r} is, or install it."
            ) from cause
        raise InputError(f"{error}\n  Install {missing!r} into the Python that runs this: {sys.executable}.") from cause
    top = name.partition(".")[0]
    own, found = _own_files(folder, top), getattr(sys.modules[top], "__file__", None)
    if own and (found is None or Path(found).resolve() not in [path.resolve() for path in own]):
        raise InputError(f"{spec!r} is not the module in this folder. {_rename({top: own[0]})}")
    return module


def _factory(spec: str, module: ModuleType, attribute: str, kind: str) -> Any:
    with user_code(f"{spec!r} cannot be found"):
        factory = getattr(module, attribute)
    if isinstance(factory, nn.Module):
        raise InputError(
            f"{spec!r} is a network, a {type(factory).__name__}. Name a function that returns it, so that it can be "
            f"built anew from a seed: def make_network(): return {type(factory).__name__}(...)."
        )
    if not callable(factory):
        raise InputError(f"{spec!r} is a {type(factory).__name__}. Name a function that returns the {kind}.")
    return factory


def _made(spec: str, factory: Any) -> Any:
    try:
        inspect.signature(factory).bind()
    except ValueError:
        pass  # Compiled functions need not have a signature: calling it tells.
    except TypeError as error:
        raise InputError(
            f"{spec!r} cannot be called without arguments: {error}. Name a function that needs none and calls it."
        ) from error
    with user_code(f"{spec!r} fails"):
        return factory()


def _own_files(folder: Path, name: str) -> list[Path]:
    return [path for path in (folder / name / "__init__.py", folder / f"{name}.py") if path.is_file()]


def _hidden(folder: Path) -> dict[str, Path]:
    """Files and packages of the user's own in `folder` in whose place Python imports ours."""
    ours = Path(__file__).resolve().parent.parent
    found = {name: _own_files(folder, name) for name in _OURS}
    return {} if folder.resolve() == ours else {name: files[0] for name, files in found.items() if files}


def _check_not_hidden(spec: str, module: ModuleType, hidden: dict[str, Path]) -> None:
    """Refuses a module that has one of our packages where the folder that it comes from has one of that name."""
    held = [value for value in vars(module).values() if value is not None]
    for name in hidden:
        package = sys.modules.get(name)
        if any(value is package or str(getattr(value, "__module__", "")).partition(".")[0] == name for value in held):
            raise InputError(f"{spec!r} imports {name!r}. {_rename({name: hidden[name]})}")


def _rename(hidden: dict[str, Path]) -> str:
    return "\n  ".join(
        f"Python finds {getattr(sys.modules.get(name), '__file__', None) or name} in place of {path}: rename that."
        for name, path in hidden.items()
    )
