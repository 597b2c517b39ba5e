"""YAML of a stranger: bounded, every key once, and each scalar what it looks like.

The scalars are those of YAML 1.2: `on` and `no` are words, `010` is ten, `1:30` and dates are
words. So does a flag of the command line read its value.
"""

import re
from collections.abc import Callable, Hashable
from typing import Any

import yaml

from cpic._trust import DEPTH, DoubtError

# Of a file, aliases counted as often as they stand; the longest settings here have a hundred.
VALUES = 10_000
_TAG = "tag:yaml.org,2002:"
_PLAIN = {f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")}
_SCALARS = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)"
        r"|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "merge": (r"<<", "<"),
}


class Loader(yaml.SafeLoader):
    """PyYAML with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


for _name, (_pattern, _first) in _SCALARS.items():
    _letters = ["" if letter == "\0" else letter for letter in _first]
    Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(rf"(?:{_pattern})\Z"), _letters)


def _int(loader: Loader, node: Any) -> int:
    return int(loader.construct_scalar(node))


Loader.add_constructor(f"{_TAG}int", _int)


def read(text: str, build: Callable[[Loader, yaml.Node], Any] | None = None) -> Any:
    """The value of a text.

    Args:
        text: YAML, one document.
        build: Makes the value of the outermost node; the plain values if not given.

    Raises:
        DoubtError: If it is no YAML, or more than one document, too deep, too large, says a key
            twice, or names a kind of its own; with the line.
    """
    try:
        _check(text)
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_keys(node, set())
            return build(loader, node) if build else loader.construct_document(node)
        finally:
            loader.dispose()
    except DoubtError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, LookupError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DoubtError(f"cannot be read as YAML ({reason})") from error


def pairs(loader: Loader, node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
    """Keys and values, with those of merged mappings in front."""
    loader.flatten_mapping(node)
    return node.value


def _check(text: str) -> None:
    """Depth, number of values and kinds, before anything is made of them."""
    sizes: dict[str, int | None] = {}
    # Values below each open list or mapping, and the name it is repeated under.
    opened: list[tuple[str | None, int]] = [(None, 0)]
    documents = 0
    for event in yaml.parse(text, Loader=Loader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            raise DoubtError(f"holds a second document in line {line}, one is needed")
        size, name = 0, getattr(event, "anchor", None)
        if isinstance(event, yaml.CollectionStartEvent | yaml.ScalarEvent):
            _check_tag(event.tag, line)
            size = 1
        if isinstance(event, yaml.CollectionStartEvent):
            if name:
                sizes[name] = None
            opened.append((name, 1))
            if len(opened) - 1 > DEPTH:
                raise DoubtError(f"is nested deeper than {DEPTH} levels in line {line}")
            continue
        if isinstance(event, yaml.AliasEvent):
            # A mark that is not there is an error of the parser's.
            size = sizes.get(name or "", 1)  # type: ignore[assignment]
            if size is None:
                raise DoubtError(f"repeats *{name} inside itself in line {line}")
        elif isinstance(event, yaml.CollectionEndEvent):
            name, size = opened.pop()
        if name and not isinstance(event, yaml.AliasEvent):
            sizes[name] = size
        opened[-1] = (opened[-1][0], opened[-1][1] + size)
        if opened[-1][1] > VALUES:
            raise DoubtError(f"stands for more than {VALUES} values by line {line}")


def _check_tag(tag: str | None, line: int) -> None:
    if tag not in (None, "!", *_PLAIN):
        raise DoubtError(f"names a kind of its own, {str(tag)[:80]}, in line {line}")


def _check_keys(node: yaml.Node, seen: set[int]) -> None:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for one in node.value:
            _check_keys(one, seen)
    if isinstance(node, yaml.MappingNode):
        lines: dict[Hashable, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise DoubtError(f"has a list or mapping as a key in line {line}, words are needed")
            if key.value in lines:
                raise DoubtError(
                    f"says {key.value[:80]!r} twice, in lines {lines[key.value]} and {line}; leave "
                    "one out"
                )
            lines[key.value] = line
            _check_keys(value, seen)
