"""Kinds of options: types and ranges, defined where the option is declared.

The command line, YAML files and calls from Python are all checked against them.
"""

import functools
import inspect
import os
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

_UNFIT = (ValueError, TypeError, ArithmeticError)
_UNIONS = (Union, types.UnionType)
_MOST, _HUGE = 2**63 - 1, sys.float_info.max


class Bound(NamedTuple):
    """A constraint on a value besides its type.

    Attributes:
        words: Description of the valid values.
        holds: Whether a value of the type is valid.
    """

    words: str
    holds: Callable[[Any], Any]

    def __repr__(self) -> str:
        return self.words


Count = Annotated[int, Bound("a whole number of at least 1", lambda n: 1 <= n <= _MOST)]
Width = Annotated[int, Bound("a whole number between 1 and 4096", lambda n: 1 <= n <= 4096)]
Factor = Annotated[float, Bound("a number between 0.5 and 256", lambda x: 0.5 <= x <= 256)]
Whole = Annotated[int, Bound("a whole number of at least 0", lambda n: 0 <= n <= _MOST)]
# Each one is a process.
Workers = Annotated[int, Bound("a whole number between 0 and 1024", lambda n: 0 <= n <= 1024)]
Folds = Annotated[int, Bound("a whole number of at least 2", lambda n: 2 <= n <= _MOST)]
Axis = Annotated[int, Bound("0, 1 or 2", lambda n: 0 <= n <= 2)]
# The largest stores that are read have 8192 voxels along each axis.
Size = Annotated[int, Bound("a whole number between 2 and 65536", lambda n: 2 <= n <= 2**16)]
Share = Annotated[float, Bound("a number from 0 to below 1", lambda x: 0 <= x < 1)]
Positive = Annotated[float, Bound("a number above 0", lambda x: 0 < x <= _HUGE)]
NotNegative = Annotated[float, Bound("a number of at least 0", lambda x: 0 <= x <= _HUGE)]
Finite = Annotated[float, Bound("a finite number", lambda x: abs(x) <= _HUGE)]
Text = Annotated[str, Bound("text that is not empty", lambda text: text and "\0" not in text)]
# A single folder, valid on every system.
_NAME = re.compile(
    r"(?i)(?!(con|prn|aux|nul|null|none|com\d|lpt\d)(\.|\Z))"
    r"[^\s.~\-/\\<>:\"|?*\x00-\x1f\x7f]([^/\\<>:\"|?*\x00-\x1f\x7f]{0,98}"
    r"[^\s./\\<>:\"|?*\x00-\x1f\x7f])?"
)
_NAMES = (
    "the name of one folder, of at most 100 letters, digits and signs such as - _ . "
    "(neither .. nor a path)"
)
Name = Annotated[str, Bound(_NAMES, _NAME.fullmatch)]


def checked(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert options of a function or class to plain values of the kinds in its signature.

    Args:
        function: Its signature has the kinds.
        values: By name; values without a kind are returned unchanged.

    Raises:
        ValueError: If a value is invalid; the message has the name, the valid values, the given
            value and the description in the docstring.

    Example:
        >>> def run(*, rank: Count = 10): ...
        >>> checked(run, {"rank": 0})
        Traceback (most recent call last):
        ...
        ValueError: rank needs a whole number of at least 1, got 0.
    """
    kinds, found = kinds_of(function), dict(values)
    for name in kinds.keys() & found.keys():
        found[name] = fitted(kinds[name], found[name], name=name, of=function)
    return found


@functools.cache
def kinds_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Kinds of the arguments of a function or class by name."""
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.annotation for one in parameters if one.annotation is not one.empty}


@functools.cache
def docs_of(function: Callable[..., Any]) -> dict[str, str]:
    """Descriptions of the arguments in the docstring of a function, or of a class and its bases."""
    from docstring_parser import google

    bases = function.__mro__[-2::-1] if isinstance(function, type) else (function,)
    params = [one for base in bases for one in google.parse(base.__doc__ or "").params]
    return {one.arg_name: " ".join((one.description or "").split()) for one in params}


def fitted(kind: Any, value: Any, *, name: str, where: str = "", of: Any = None) -> Any:
    """Convert one option to a plain value of its kind.

    Args:
        kind: Type and range.
        value: The given value.
        name: Name of the option.
        where: Beginning of the message, such as a file.
        of: Function or class whose docstring explains the option.

    Raises:
        ValueError: If the value is invalid.
    """
    try:
        return _fit(kind, value)
    except _UNFIT:
        shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:80]}..."
        start, doc = f"{where}: " if where else "", docs_of(of).get(name, "") if of else ""
        # The first sentence of the description is enough.
        end = f" {name}: {re.split('[.;]( |$)', doc)[0]}." if doc else ""
        raise ValueError(f"{start}{name} needs {described(kind)}, got {shown}.{end}") from None


def described(kind: Any) -> str:
    """Describe the values of a kind in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return inner[1].words
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin in _UNIONS:
        # A path may be given as text.
        return " or ".join(dict.fromkeys(described(one) for one in inner if one is not Path))
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"{len(inner)} values, each {described(inner[0])}"
    if is_list(kind):
        return f"a list of values, each {described(inner[0])}"
    if is_mapping(kind):
        return "settings by name"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return (words | {types.NoneType: "null", None: "null"}).get(kind) or kind.__name__


def is_list(kind: Any) -> bool:
    """Whether values of this kind are lists."""
    return any(get_origin(one) in (tuple, Sequence) for one in _choices(kind))


def is_mapping(kind: Any) -> bool:
    """Whether values of this kind have settings below them."""
    return any(get_origin(one) in (dict, Mapping) for one in _choices(kind))


def is_text(kind: Any) -> bool:
    """Whether the text is taken literally, whatever it looks like."""
    return any(one in (str, Path, Text, Name) for one in _choices(kind))


def element(kind: Any) -> Any:
    """The kind of the elements of a list."""
    return next(get_args(one)[0] for one in _choices(kind) if is_list(one))


def _choices(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in _UNIONS else (kind,)


def _fit(kind: Any, value: Any) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in _UNIONS:
        return _fit_one_of(inner, value)
    if origin is Annotated:
        found = _fit(inner[0], value)
        if not inner[1].holds(found):
            raise ValueError
        return os.path.expanduser(found) if kind == Text and found[0] == "~" else found
    if origin is Literal:
        return _of(tuple(type(one) for one in inner if one == value), value)
    if is_list(kind):
        _of(Sequence, None if isinstance(value, str) else value)
        each = inner if origin is tuple and inner[-1] is not Ellipsis else (inner[0],) * len(value)
        return tuple(_fit(kind, one) for kind, one in zip(each, value, strict=True))
    if is_mapping(kind):
        return {_fit(inner[0], k): _fit(inner[1], v) for k, v in _of(Mapping, value).items()}
    if kind is Any or not isinstance(kind, type | None):
        return value
    # The stored value is a plain one, not of a type of a library.
    accepted = {int: Integral | float, float: Real}.get(kind, kind or types.NoneType)
    if isinstance(value, bool) and kind is not bool:
        raise TypeError
    found = kind(_of(accepted, value)) if kind in (int, float, str) else _of(accepted, value)
    if kind is int and found != value:
        raise ValueError
    return found


def _fit_one_of(kinds: Sequence[Any], value: Any) -> Any:
    for kind in kinds:
        try:
            return _fit(kind, value)
        except _UNFIT:
            continue
    raise ValueError


def _of(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value
