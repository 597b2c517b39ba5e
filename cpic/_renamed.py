"""Old names of modules and arguments, kept for one version with a warning."""

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
                warnings.warn(
                    f"{old}.{name} is now {module.__name__}.{name}; the old name goes with "
                    "version 0.2.",
                    FutureWarning,
                    stacklevel=2,
                )
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
                warnings.warn(
                    f"{function.__qualname__} calls {old!r} now {new!r}; the old name goes "
                    "with version 0.2.",
                    FutureWarning,
                    stacklevel=2,
                )
                options[new] = options.pop(old)
            return function(*args, **options)

        return call  # type: ignore[return-value]

    return decorate
