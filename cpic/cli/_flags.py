"""Flags of the commands that train and predict, as settings: a flag reads its value like a file."""

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Short flags, names of the published scripts, and one of before.
_OLD = {
    "-b": "--batch_size",
    "-d": "--root",
    "--dataset_location": "--root",
    "-r": "--results_folder",
    "-e": "--num_epochs",
    "-n": "--experiment_name",
    "-h": "--help",
    "--starts": "--n_warm_starts",
}
_FILES = ("config", "preset")
# These stand alone.
_ALONE = ("help", "print_config")
_NEGATIVE = re.compile(r"-(\d|\.\d|\.?(inf|nan)\Z)", re.IGNORECASE)


class Flags(NamedTuple):
    """What was asked for.

    Attributes:
        files: Of settings, in their order.
        values: Words by name; names with dots are below a setting.
        alone: Flags without a value.
    """

    files: list[Path]
    values: dict[str, list[str]]
    alone: set[str]


def split(command: str, words: Sequence[str], kinds: Mapping[str, Any]) -> Flags:
    """Names and words out of the command line.

    Raises:
        ValueError: If a name is unknown or there twice, or a value is missing.
    """
    from cpic.options import _kinds, _presets

    found = Flags([], {}, set())
    left = list(words)
    if command == "baseline" and left and not _is_flag(left[0]):
        left[0] = f"--name={left[0]}"
    while left:
        name, equals, value = left.pop(0).partition("=")
        key = _key(_OLD.get(name, name), kinds)
        if key in _ALONE:
            found.alone.add(key)
            continue
        many = _kinds.is_list(kinds.get(key, Any))
        values = [value] if equals else []
        while left and not equals and not _is_flag(left[0]) and (many or not values):
            values.append(left.pop(0))
        if not values:
            raise ValueError(f"--{key} needs a value; write --{key}=VALUE.")
        if key in _FILES:
            preset = key == "preset"
            found.files.append(_presets.preset_file(values[0]) if preset else Path(values[0]))
            continue
        if key in found.values and not many:
            raise ValueError(f"--{key} is there twice; leave one out.")
        found.values.setdefault(key, []).extend(values)
    return found


def _is_flag(word: str) -> bool:
    """Whether it is no value; a negative number is one."""
    return word.startswith("-") and not _NEGATIVE.match(word)


def _key(name: str, kinds: Mapping[str, Any]) -> str:
    from cpic.options import _kinds, _presets

    if name in ("-s", "--system_path"):
        raise ValueError("there is no --system_path; give the folder of the data by --root.")
    if not _is_flag(name):
        raise ValueError(f"there is no place for {name!r}; write --NAME=VALUE.")
    key = name.removeprefix("--")
    if key in (*_FILES, *_ALONE):
        return key
    first, dot, _ = key.partition(".")
    _presets.check_name(first, kinds, where="the command line")
    if dot and not _kinds.is_mapping(kinds[first]):
        raise ValueError(f"there is nothing below the setting {first!r}, got --{key}.")
    return key


def settings(flags: Flags, command: str, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Values of files and flags, which win.

    Raises:
        ValueError: If a file cannot be read, or a value does not fit.
    """
    from cpic.options import _kinds, _presets

    found = _presets.read_settings(flags.files, command, kinds)
    # What is below a setting comes after the setting itself.
    for key in sorted(flags.values, key=lambda name: name.count(".")):
        first, *inner = key.split(".")
        value = _value(key, flags.values[key], Any if inner else kinds[first])
        if inner:
            value = _below(found.get(first), inner, value, key)
        found[first] = _kinds.fitted(kinds[first], value, name=first)
    return found


def _value(key: str, words: list[str], kind: Any) -> Any:
    from cpic._trust import DoubtError
    from cpic.options import _kinds, _presets

    try:
        if _kinds.is_list(kind) and len(words) > 1:
            return _presets.from_texts(words, kind)
        return _presets.from_text(words[0], kind)
    except DoubtError as error:
        raise ValueError(f"the value of --{key} {error}.") from error


def _below(outer: Any, names: list[str], value: Any, key: str) -> dict[str, Any]:
    """The mapping with one more value, some levels down."""
    found: dict[str, Any] = copy.deepcopy(outer) or {}
    place: Any = found
    for name in names[:-1]:
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise ValueError(f"--{key} needs settings by name under {name!r}, got {place!r}.")
    if not all(names):
        raise ValueError(f"--{key} needs a name behind every dot.")
    place[names[-1]] = value
    return found
