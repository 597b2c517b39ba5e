"""Kinds of settings: what each may be is said once, in the signature of the function that has it.

The command line, YAML files and calls from Python are checked against these alike.
"""

import functools
import inspect
import os
import types
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from jsonargparse.typing import restricted_number_type, restricted_string_type

_ENDLESS = float("inf")

if TYPE_CHECKING:
    Count = Width = Whole = Workers = Folds = Axis = Size = int
    Positive = Finite = float
    Name = Text = str
else:
    _whole = functools.partial(restricted_number_type, base_type=int)
    _real = functools.partial(restricted_number_type, base_type=float)
    Count = _whole(
        "Count",
        restrictions=[(">=", 1), ("<", 2**63)],
        docstring="a whole number of at least 1",
    )
    Width = _whole(
        "Width",
        restrictions=[(">=", 1), ("<=", 4096)],
        docstring="a whole number between 1 and 4096",
    )
    Whole = _whole(
        "Whole",
        restrictions=[(">=", 0), ("<", 2**63)],
        docstring="a whole number of at least 0",
    )
    # Each is a process.
    Workers = _whole(
        "Workers",
        restrictions=[(">=", 0), ("<=", 1024)],
        docstring="a whole number between 0 and 1024",
    )
    Folds = _whole(
        "Folds",
        restrictions=[(">=", 2), ("<", 2**63)],
        docstring="a whole number of at least 2",
    )
    Axis = _whole("Axis", restrictions=[(">=", 0), ("<=", 2)], docstring="0, 1 or 2")
    # The largest stores that are read have 8192 voxels along each axis.
    Size = _whole(
        "Size",
        restrictions=[(">=", 2), ("<=", 2**16)],
        docstring="a whole number between 2 and 65536",
    )
    Positive = _real(
        "Positive", restrictions=[(">", 0.0), ("<", _ENDLESS)], docstring="a number above 0"
    )
    Finite = _real(
        "Finite", restrictions=[(">", -_ENDLESS), ("<", _ENDLESS)], docstring="a finite number"
    )
    # One folder, on every system.
    Name = restricted_string_type(
        "Name",
        r"(?i)(?!(con|prn|aux|nul|null|none|com\d|lpt\d)(\.|\Z))"
        r"[^\s.~\-/\\<>:\"|?*\x00-\x1f\x7f]([^/\\<>:\"|?*\x00-\x1f\x7f]{0,98}"
        r"[^\s./\\<>:\"|?*\x00-\x1f\x7f])?\Z",
        docstring="the name of one folder, of at most 100 letters, digits and signs such as - _ . "
        "(neither .. nor a path)",
    )
    Text = restricted_string_type("Text", r"[^\x00]+\Z", docstring="text that is not empty")


def checked(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a function as plain values of the kinds that its signature says.

    Args:
        function: Whose signature it is.
        values: By name; names without a kind are returned as they are.

    Raises:
        ValueError: If one does not fit, with its name, what it may be and what it is.

    Example:
        >>> def run(*, rank: Count = 10): ...
        >>> checked(run, {"rank": 0})
        Traceback (most recent call last):
        ...
        ValueError: rank needs a whole number of at least 1, got 0.
    """
    kinds = kinds_of(function)
    return {
        name: fitted(kinds[name], value, name=name) if name in kinds else value
        for name, value in values.items()
    }


@functools.cache
def kinds_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Kinds of the arguments by name."""
    hints = get_type_hints(function)
    return {name: hints[name] for name in inspect.signature(function).parameters if name in hints}


def fitted(kind: Any, value: Any, *, name: str, where: str = "") -> Any:
    """One setting as a plain value of its kind.

    Raises:
        ValueError: If it does not fit; `where` goes in front of what is said.
    """
    try:
        return _fit(kind, value)
    except (ValueError, TypeError, ArithmeticError):
        shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:80]}..."
        raise ValueError(
            f"{f'{where}: ' if where else ''}{name} needs {described(kind)}, got {shown}."
        ) from None


def described(kind: Any) -> str:
    """What a setting of this kind may be, in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind in (None, types.NoneType):
        return "null"
    if kind is bool:
        return "true or false"
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        # A path is text as well.
        return " or ".join(dict.fromkeys(described(one) for one in inner if one is not Path))
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"{len(inner)} values, each {described(inner[0])}"
    if is_list(kind):
        return f"values in a row, each {described(inner[0])}"
    if is_mapping(kind):
        return "settings by name"
    plain = {int: "a whole number", float: "a number", str: "text"}
    return (
        plain.get(kind) or (issubclass(kind, int | float | str) and kind.__doc__) or kind.__name__
    )


def is_list(kind: Any) -> bool:
    """Whether values of this kind follow each other."""
    return any(get_origin(one) in (tuple, Sequence) for one in _choices(kind))


def is_mapping(kind: Any) -> bool:
    """Whether values of this kind have settings below them."""
    return any(get_origin(one) in (dict, Mapping) for one in _choices(kind))


def is_text(kind: Any) -> bool:
    """Whether what is written stands for itself, whatever it looks like."""
    plain = [one for one in _choices(kind) if isinstance(one, type)]
    return any(issubclass(one, str | Path) for one in plain)


def element(kind: Any) -> Any:
    """The kind of what follows each other."""
    return next(get_args(one)[0] for one in _choices(kind) if is_list(one))


def _choices(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _fit(kind: Any, value: Any) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _fit_one_of(inner, value)
    if origin is Literal:
        return _of(tuple(type(one) for one in inner if one == value), value)
    if is_list(kind):
        return _fit_list(origin, inner, value)
    if is_mapping(kind):
        return {_fit(inner[0], k): _fit(inner[1], v) for k, v in _of(Mapping, value).items()}
    if kind in (None, types.NoneType):
        return _of(types.NoneType, value)
    if kind is Any or not isinstance(kind, type):
        return value
    for base, accepted in ((bool, bool), (int, Integral | float), (float, Real), (str, str)):
        if issubclass(kind, base):
            return _fit_plain(kind, base, accepted, value)
    return _of(kind, value)


def _fit_one_of(kinds: Sequence[Any], value: Any) -> Any:
    for kind in kinds:
        try:
            return _fit(kind, value)
        except (ValueError, TypeError, ArithmeticError):
            continue
    raise ValueError


def _fit_list(origin: Any, inner: Sequence[Any], value: Any) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError
    each = inner if origin is tuple and inner[-1] is not Ellipsis else (inner[0],) * len(value)
    return tuple(_fit(kind, one) for kind, one in zip(each, value, strict=True))


def _fit_plain(kind: Any, base: type, accepted: Any, value: Any) -> Any:
    if base is not bool and isinstance(value, bool):
        raise TypeError
    # The restricted kinds check when they are called; what is kept is a plain value.
    found = kind(_of(accepted, value))
    if base is int and found != value:
        raise ValueError
    return os.path.expanduser(found) if kind is Text and found[:1] == "~" else base(found)


def _of(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value
