"""Parameters of a notebook, and the files that its executed copy may replace."""

import ast
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from cpic._trust import DoubtError, parse_json, read_regular

# Size limit of a notebook with its pictures; a larger file has another purpose.
_LARGEST = 2**28
_WORDS = {"true": True, "false": False, "null": None}
# The keys of every row in a summary of `cpic.run`.
_ROW = {"chapter", "mode", "seconds", "output"}
# 007 is a name, and so is 1,000, which Python would parse as two numbers.
_ZEROS = re.compile(r"(?<![\w.])0\d")


def parameters_of(path: Path) -> dict[str, Any]:
    """Names and values in the cell tagged `parameters`; None for a value that is computed.

    Raises:
        ValueError: If the file is not a notebook, or the cell is not plain Python.
    """
    try:
        cells = _content(path)["cells"]
        tagged = [c for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
        source = "".join(tagged[0]["source"]) if tagged else ""
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read as a notebook ({error}).") from error
    try:
        nodes = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} needs plain Python in the cell tagged `parameters` ({error})."
        ) from error
    found: dict[str, Any] = {}
    for node in nodes:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update({t.id: _default(node) for t in targets if isinstance(t, ast.Name)})
    return found


def _default(node: Any) -> Any:
    try:
        return ast.literal_eval(node.value)
    except (ValueError, TypeError, SyntaxError, RecursionError):
        return None


def value_of(text: str, defaults: Iterable[Any] = ()) -> Any:
    """Parse a word of the command line: text if the default is text, else a Python literal.

    Example:
        >>> value_of("(8, 8)"), value_of("-1e-3"), value_of("true"), value_of("007")
        ((8, 8), -0.001, True, '007')
        >>> value_of("1.10", ["0.9"])
        '1.10'
    """
    textual = any(isinstance(default, str) for default in defaults)
    word = text.strip().lower()
    if not textual and word in _WORDS:
        return _WORDS[word]
    if not textual and word.lstrip("+-") in ("nan", "inf"):
        return float(word)
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text
    if isinstance(found, str):
        return found
    return text if textual or _ZEROS.search(text) else found


def literal(value: Any) -> str:
    """Python source for numbers, text, None, and lists, tuples and mappings of these.

    Raises:
        ValueError: If the value is anything else.

    Example:
        >>> literal((8, None, [float("nan"), "007"]))
        "(8, None, [float('nan'), '007'])"
    """
    if value is None or isinstance(value, bool | str):
        return repr(value)
    if isinstance(value, Integral):
        return repr(int(value))
    if isinstance(value, Real):
        number = float(value)
        return repr(number) if math.isfinite(number) else f"float('{number}')"
    if isinstance(value, os.PathLike):
        return repr(os.fspath(value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        inner = ", ".join(literal(one) for one in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    raise ValueError(
        f"needs numbers, text, None, or lists, tuples and mappings of them, got a "
        f"{type(value).__name__}"
    )


def check_outputs(paths: Sequence[Path], folder: Path) -> None:
    """Raise unless every executed copy, and the summary, can be written without loss.

    Raises:
        ValueError: If two notebooks share a name, or an existing file is not an output of a run.
    """
    seen: dict[str, Path] = {}
    for path in paths:
        # Some file systems do not distinguish these names.
        name = unicodedata.normalize("NFC", path.name).casefold()
        if name in seen:
            raise ValueError(
                f"the executed copies of {seen[name]} and {path} would have the same name; run one "
                "of them, or give each a folder of its own."
            )
        seen[name] = path
    targets = [folder / path.name for path in paths]
    kinds = [*((one, "output of a run", _is_output) for one in targets)]
    kinds.append((folder / "summary.json", "summary of chapters", _is_summary))
    for target, kind, fits in kinds:
        if not target.exists():
            continue
        if any(target.samefile(path) for path in paths) or not _holds(target, fits):
            raise ValueError(
                f"{target} is not the {kind} and would be lost; choose another folder by out."
            )


def _is_output(content: Any) -> bool:
    """Whether papermill wrote it: the chapters themselves are stripped of its metadata."""
    return "papermill" in content["metadata"]


def _is_summary(content: Any) -> bool:
    return isinstance(content, list) and all(set(row) >= _ROW for row in content)


def _holds(path: Path, fits: Callable[[Any], bool]) -> bool:
    try:
        return fits(_content(path))
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _content(path: Path) -> Any:
    try:
        return parse_json(read_regular(path, _LARGEST))
    except DoubtError as error:
        raise ValueError(f"it {error}") from error
