"""Old names of modules, arguments and attributes, kept for one version with a warning."""

import dataclasses
import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])


def moved(old: str, *new: str) -> Callable[[str], Any]:
    """A module's `__getattr__` that finds each name in one of the modules it went to.

    Args:
        old: Name of the module.
        new: Modules that hold its names now, in the order they are asked.
    """

    def find(name: str) -> Any:
        for module in map(importlib.import_module, new):
            if not name.startswith("_") and hasattr(module, name):
                _warn(f"{old}.{name} is now {module.__name__}.{name}; the old name goes")
                return getattr(module, name)
        raise AttributeError(f"module {old!r} has no attribute {name!r}")

    return find


def renamed(**names: str) -> Callable[[_F], _F]:
    """Let a function take arguments by their old names, too.

    Args:
        names: The new name of each argument by its old one.
    """

    def decorate(function: _F) -> _F:
        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            for old, new in names.items():
                # Both at once are for the function itself to refuse.
                if old not in options or new in options:
                    continue
                _warn(f"{function.__qualname__} calls {old!r} now {new!r}; the old name goes")
                options[new] = options.pop(old)
            return function(*args, **options)

        return call  # type: ignore[return-value]

    return decorate


def regrouped(group: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[_F], _F]:
    """Let a function take one by one, too, the options that it takes in objects now.

    Args:
        group: Makes the arguments of today from all those given by name.
    """

    def decorate(function: _F) -> _F:
        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            found = group(options)
            if fresh := [name for name in found if found[name] is not options.get(name)]:
                objects = ", ".join(f"{name}={type(found[name]).__name__}(...)" for name in fresh)
                _warn(
                    f"{function.__qualname__} takes some options by {objects} now; to give "
                    "them one by one goes"
                )
            return function(*args, **found)

        return call  # type: ignore[return-value]

    return decorate


def field(owner: str, name: str) -> property:
    """An attribute that is a field of the frozen dataclass `owner` now; reads and sets it."""

    def get(self: Any) -> Any:
        _warn(f"this is now `{owner}.{name}`; the attribute of its own goes")
        return getattr(getattr(self, owner), name)

    def put(self: Any, value: Any) -> None:
        _warn(f"this is now `{owner}`, to be set as a whole; the attribute of its own goes")
        setattr(self, owner, dataclasses.replace(getattr(self, owner), **{name: value}))

    return property(get, put)


def _warn(message: str) -> None:
    # Of the caller's caller.
    warnings.warn(f"{message} with version 0.2.", FutureWarning, stacklevel=3)
