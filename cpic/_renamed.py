"""Old names of modules, arguments and attributes, kept for one version with a warning."""

import dataclasses
import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])


def moved(old: str, *new: str) -> Callable[[str], Any]:
    """A module's `__getattr__` that looks up each name in the modules it moved to.

    Args:
        old: Name of the module.
        new: Modules that now hold its names, in the order of the lookup.
    """

    def find(name: str) -> Any:
        for module in map(importlib.import_module, new):
            if not name.startswith("_") and hasattr(module, name):
                warn_old(f"{old}.{name} is now {module.__name__}.{name}; the old name")
                return getattr(module, name)
        raise AttributeError(f"module {old!r} has no attribute {name!r}")

    return find


def renamed(**names: str) -> Callable[[_F], _F]:
    """Let a function also accept arguments by their old names.

    Args:
        names: The new name of each argument by its old name.
    """

    def decorate(function: _F) -> _F:
        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            for old, new in names.items():
                # If both are given, the function itself raises.
                if old not in options or new in options:
                    continue
                warn_old(f"{function.__qualname__}: {old!r} is now {new!r}; the old name")
                options[new] = options.pop(old)
            return function(*args, **options)

        return call  # type: ignore[return-value]

    return decorate


def regrouped(group: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[_F], _F]:
    """Let a function also accept options one by one that are now fields of objects.

    Args:
        group: Converts all keyword arguments to the current ones.
    """

    def decorate(function: _F) -> _F:
        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            found = group(options)
            if fresh := [name for name in found if found[name] is not options.get(name)]:
                objects = ", ".join(f"{name}={type(found[name]).__name__}(...)" for name in fresh)
                warn_old(
                    f"{function.__qualname__} now takes some options by {objects}; giving "
                    "them one by one"
                )
            return function(*args, **found)

        return call  # type: ignore[return-value]

    return decorate


def field(owner: str, name: str) -> property:
    """An attribute that is now a field of the frozen dataclass `owner`; reads and sets it."""

    def get(self: Any) -> Any:
        warn_old(f"this is now `{owner}.{name}`; the separate attribute")
        return getattr(getattr(self, owner), name)

    def put(self: Any, value: Any) -> None:
        warn_old(f"this is now `{owner}`, to be set as a whole; the separate attribute")
        setattr(self, owner, dataclasses.replace(getattr(self, owner), **{name: value}))

    return property(get, put)


def warn_old(message: str) -> None:
    """Warn that what the message ends with goes; reported at the caller of the caller."""
    warnings.warn(f"{message} will be removed in version 0.2.", FutureWarning, stacklevel=3)
