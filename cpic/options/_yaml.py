"""YAML from untrusted files: bounded, without repeated keys or implicit surprises.

Scalars are those of YAML 1.2: `on` and `no` are words, `010` is ten, `1:30` and dates are words.
Flags of the command line parse their values in the same way.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml

from cpic._trust import DEPTH, DoubtError

# Values of a file, aliases expanded; the longest settings here have about a hundred.
VALUES = 10_000
_TAG = "tag:yaml.org,2002:"
_PLAIN = {
    f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map", "merge")
}
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
    """Parse a YAML text.

    Args:
        text: A single YAML document.
        build: Builds the value of the outermost node; plain values by default.

    Raises:
        DoubtError: If it is not YAML, has more than one document, is too deep or too large, repeats
            a key, or has a custom tag; the message has the line.
    """
    loader: Loader | None = None
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, {}, 1)
        return build(loader, node) if build else loader.construct_document(node)
    except DoubtError:
        raise
    except RecursionError as error:
        line = loader.line + 1 if loader else 1
        raise DoubtError(f"is nested deeper than {DEPTH} levels in line {line}") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError) as error:
        reason = " ".join(str(error).split())
        raise DoubtError(f"cannot be read as YAML ({reason})") from error
    finally:
        if loader:
            loader.dispose()


def pairs(loader: Loader, node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
    """Keys and values, with those of merged mappings first."""
    loader.flatten_mapping(node)
    return node.value


def _check(node: yaml.Node, sizes: dict[int, int], depth: int) -> int:
    """Count the values of a node before any is built, aliases expanded.

    Args:
        node: The root of a subtree.
        sizes: Numbers of values of nodes that are known; 0 for nodes that are being counted.
        depth: Depth of the node.
    """
    line, key = node.start_mark.line + 1, id(node)
    if depth > DEPTH and not isinstance(node, yaml.ScalarNode):
        raise DoubtError(f"is nested deeper than {DEPTH} levels in line {line}")
    if node.tag not in _PLAIN:
        raise DoubtError(f"has a custom tag, {node.tag[:80]}, in line {line}")
    if sizes.get(key) == 0:
        raise DoubtError(f"has a part that contains itself in line {line}")
    if key not in sizes:
        sizes[key] = 0
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
        below = _below(node)
        sizes[key] = 1 + sum(_check(one, sizes, depth + 1) for one in below)
        if sizes[key] > VALUES:
            raise DoubtError(f"expands to more than {VALUES} values in line {line}")
    return sizes[key]


def _below(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [value for _, value in node.value]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _check_keys(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise DoubtError(f"has a list or mapping as a key in line {line}; use words")
        if key.value in lines:
            raise DoubtError(
                f"has {key.value[:80]!r} twice, in lines {lines[key.value]} and {line}; leave "
                "one out"
            )
        lines[key.value] = line
