"""Flags of a command as options: a flag parses its value as a file does."""

import copy
import itertools
import re
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cpic._trust import DoubtError
from cpic.options import _kinds, _presets, _published
from cpic.options._command import Command

# Short flags and names of the published scripts.
SHORT = {
    "-b": "--batch_size",
    "-d": "--root",
    "-r": "--results_folder",
    "-e": "--num_epochs",
    "-n": "--experiment_name",
}
# Those of one command, which take precedence.
_SHORT_OF = {
    "gcp": {"-a": "--arch", "-j": "--num_workers", "-e": "--evaluate", "-p": "--print_freq"}
}
# Options that a published script takes by position, or without a value.
_BY_PLACE = {"gcp": ["root"]}
_BARE = {("gcp", "pretrained"): "torchvision", ("gcp", "keep_epochs"): "true"}
_OLD = {**SHORT, "--dataset_location": "--root", "--cfg": "--config", "-h": "--help"}
_FILES = ("config", "preset")
# These take no value.
_ALONE = ("help", "print_config")
_NEGATIVE = re.compile(r"-(\d|\.\d|\.?(inf|nan)\Z)", re.IGNORECASE)


class Flags(NamedTuple):
    """The parsed command line.

    Attributes:
        files: Settings files, in order.
        values: Words by flat name; a dotted name is a setting below an option.
        alone: Flags without a value.
    """

    files: list[Path | _presets.Made]
    values: dict[str, list[str]]
    alone: set[str]


def split(command: Command, words: Sequence[str]) -> Flags:
    """Split the command line into names and words.

    Raises:
        ValueError: If a name is unknown or given twice, or a value is missing.
    """
    found = Flags([], {}, set())
    left = list(words)
    by_place = itertools.takewhile(lambda word: not _is_flag(word), words)
    places = _BY_PLACE.get(command.name, command.places)
    for k, (place, word) in enumerate(zip(places, by_place, strict=False)):
        left[k] = f"--{place}={word}"
    short = short_flags(command)
    while left:
        name, equals, value = left.pop(0).partition("=")
        name = short.get(name, _OLD.get(name, name))
        if command.name == "gcp" and _dropped(name):
            while left and not _is_flag(left[0]):
                left.pop(0)
            continue
        key = _key(name, command)
        if key in _ALONE:
            found.alone.add(key)
            continue
        many = key in command.options and _kinds.is_list(command.options[key].kind)
        values = [value] if equals else []
        while left and not equals and not _is_flag(left[0]) and (many or not values):
            values.append(left.pop(0))
        if not values and (bare := _BARE.get((command.name, key))):
            values = [bare]
        if not values:
            raise ValueError(f"--{key} needs a value; write --{key}=VALUE.")
        if key in _FILES:
            preset = key == "preset"
            found.files.append(_presets.preset_file(values[0]) if preset else Path(values[0]))
            continue
        if key in found.values and not many:
            raise ValueError(f"--{key} is given twice; leave one out.")
        found.values.setdefault(key, []).extend(values)
    return found


def short_flags(command: Command) -> dict[str, str]:
    """Long flags of a command by their short names."""
    return {**SHORT, **_SHORT_OF.get(command.name, {})}


def _dropped(name: str) -> bool:
    """Whether a flag of the published script is left out, with a warning that says why."""
    reason = _published.FLAGS_DROPPED.get(name.removeprefix("--").replace("-", "_"))
    if reason is not None:
        warnings.warn(f"{name} is ignored: {reason}.", UserWarning, stacklevel=2)
    return reason is not None


def _is_flag(word: str) -> bool:
    """Whether a word is a flag; a negative number is a value."""
    return word.startswith("-") and not _NEGATIVE.match(word)


def _key(name: str, command: Command) -> str:
    if name in ("-s", "--system_path"):
        raise ValueError("there is no --system_path; give the folder of the data by --root.")
    if not _is_flag(name):
        raise ValueError(f"{name!r} is not expected here; write --NAME=VALUE.")
    key = name.removeprefix("--")
    # Published names of `cpic gcp` have dashes; those of layers lead to what is below.
    if command.name == "gcp" and name != key:
        key = key.replace("-", "_")
    elif key.partition("-")[0] in _published.KEYS.get(command.name, ()):
        key = key.replace("-", ".")
    if key in (*_FILES, *_ALONE):
        return key
    parts = key.split(".")
    if parts[0] in _published.KEYS.get(command.name, ()) and parts[0] not in command.options:
        return key
    depth = 2 if parts[0] in command.groups else 1
    option = command.known(".".join(parts[:depth]), "the command line")
    if parts[depth:] and not _kinds.is_mapping(command.options[option].kind):
        raise ValueError(f"the setting {option!r} has no settings below it, got --{key}.")
    return ".".join([option, *parts[depth:]])


def settings(flags: Flags, command: Command, commands: Collection[str]) -> dict[str, Any]:
    """Merge values of files and flags; flags take precedence.

    Raises:
        ValueError: If a file cannot be read, or a value does not fit.
    """
    found, published = _presets.read_parts(flags.files, command, commands)
    before = _presets.fitted_published(published, command)
    found = {**before, **found}
    # A setting is applied before the settings below it.
    keys = sorted(flags.values, key=lambda name: name.count("."))
    for key in [name for name in keys if name.split(".")[0] not in command.options]:
        first, *inner = key.split(".")
        value = _value(key, flags.values[key], Any)
        published[first] = _below(published.get(first), inner, value, key) if inner else value
    # What published flags have changed; a file may have set it as an option.
    after = _presets.fitted_published(published, command)
    found |= {k: v for k, v in after.items() if k not in before or before[k] != v}
    for key in [name for name in keys if name.split(".")[0] in command.options]:
        first, *inner = key.split(".")
        value = _value(key, flags.values[key], Any if inner else command.options[first].kind)
        if inner:
            value = _below(found.get(first), inner, value, key)
        found[first] = command.fitted(first, value)
    return found


def _value(key: str, words: list[str], kind: Any) -> Any:
    try:
        if _kinds.is_list(kind) and len(words) > 1:
            return _presets.from_texts(words, kind)
        return _presets.from_text(words[0], kind)
    except DoubtError as error:
        raise ValueError(f"the value of --{key} {error}.") from error


def _below(outer: Any, names: list[str], value: Any, key: str) -> dict[str, Any]:
    """A copy of the mapping with one more value, some levels down."""
    found: dict[str, Any] = copy.deepcopy(outer) or {}
    place: Any = found
    for name in names[:-1]:
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise ValueError(f"--{key} needs settings by name under {name!r}, got {place!r}.")
    if not all(names):
        raise ValueError(f"--{key} needs a name after every dot.")
    place[names[-1]] = value
    return found
