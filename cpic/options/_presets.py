"""Settings from YAML files, merged in order, with every key checked."""

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cpic._trust import DoubtError, read_regular
from cpic.options import _aistats21, _kinds, _published, _yaml
from cpic.options._command import Command
from cpic.options._names import nearest

_log = logging.getLogger(__name__)
# Bytes of a file; the longest settings of this package have about a thousand.
_LARGEST = 2**16
_WORDS = {**dict.fromkeys(("yes", "on"), True), **dict.fromkeys(("no", "off"), False)}
_QUOTED = re.compile(r"""(["'])(.*)\1""")


def preset_names() -> list[str]:
    """Names of the presets that come with the package.

    Example:
        >>> "quick" in preset_names()
        True
    """
    folder = _folder()
    files = [path.relative_to(folder).as_posix()[:-4] for path in folder.rglob("*.yml")]
    return sorted([*files, *_aistats21.presets()])


def _folder() -> Path:
    return Path(str(resources.files("cpic.options"))) / "presets"


class Made(NamedTuple):
    """A preset without a file.

    Attributes:
        name: Its name.
        settings: Options by name, with the command.
    """

    name: str
    settings: dict[str, Any]

    def __str__(self) -> str:
        return self.name


def preset_file(name: str) -> Path | Made:
    """The file of a preset, or its settings if it has none.

    Raises:
        ValueError: If there is no preset of this name.
    """
    known = preset_names()
    if name not in known:
        raise ValueError(
            f"there is no preset {name!r}{nearest(name, known)}; the presets are "
            f"{', '.join(_shortened(known))}."
        )
    if (made := _aistats21.presets().get(name)) is not None:
        return Made(name, made)
    return _folder() / f"{name}.yml"


def _shortened(names: Iterable[str]) -> list[str]:
    """Names of presets, those of a folder as one."""
    found = (re.sub(r"/(.*)/.*", r"/\1/...", name) for name in names)
    return list(dict.fromkeys(found))


def read_settings(
    files: Iterable[str | Path | Made], command: Command, commands: Collection[str] = ()
) -> dict[str, Any]:
    """Read options of one command from YAML files, by flat name; later files take precedence.

    A file maps names of options to values, at the top level or in groups. A key that is the name of
    a command holds options of that command only; `command` states which command a file is for.

    Args:
        files: Paths.
        command: Command whose options are read.
        commands: Names of all commands that may have sections.

    Raises:
        ValueError: If a file cannot be read, is for another command, or has an unknown key, a
            repeated key or an invalid value.
    """
    own, published = read_parts(files, command, commands)
    return {**fitted_published(published, command), **own}


def fitted_published(keys: Mapping[str, Any], command: Command) -> dict[str, Any]:
    """Options from published keys, checked.

    Raises:
        ValueError: If a value does not fit.
    """
    found = _published.converted(keys, command.name) if keys else {}
    where = "the published settings"
    return {name: command.fitted(name, value, where=where) for name, value in found.items()}


def read_parts(
    files: Iterable[str | Path | Made], command: Command, commands: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read options and, apart from them, published keys; arguments as of `read_settings`.

    A warning is logged for each value of a file that a later file changes; those of presets are
    there to be changed.
    """
    merged: dict[str, Any] = {}
    published: dict[str, Any] = {}
    said: dict[str, Any] = {}
    for file in files:
        if isinstance(file, Made):
            content = dict(file.settings)
        else:
            content = _read(Path(file), command.kinds | dict.fromkeys(commands, command.kinds))
        meant = content.pop("command", command.name)
        if meant != command.name:
            raise ValueError(
                f"{file} has settings of `cpic {meant}`, got `cpic {command.name}`; run that one."
            )
        sections = {name: content.pop(name) for name in commands if name in content}
        for name, part in sections.items():
            if not isinstance(part, dict):
                raise ValueError(f"{file} needs a mapping under {name!r}, got {part!r}.")
        stem = Path(str(file)).stem
        content, keys = _published.parted(content, command.options, command.name, stem)
        before, published = published, _published.merged(published, keys)
        if keys and merged:
            # Later published keys take precedence over options of files before.
            old, new = (fitted_published(one, command) for one in (before, published))
            for name in [name for name in new if name not in old or old[name] != new[name]]:
                merged.pop(name, None)
        own: dict[str, Any] = {}
        for part in (content, sections.get(command.name, {})):
            for name, value in command.flat(part, f"{file}").items():
                own[name] = command.fitted(name, value, where=f"{file}")
        merged |= own
        if not (isinstance(file, Made) or _folder() in Path(file).parents):
            for name, old, new in _published.changed(said, own | keys):
                _log.warning("%s changes %s from %r to %r.", file, name, old, new)
            said = _published.merged(said, own | keys)
    return merged, published


def from_text(text: str, kind: Any) -> Any:
    """Parse a word of the command line, or a plain scalar of a file, as a value of a kind.

    Raises:
        DoubtError: If it is YAML that is rejected.

    Example:
        >>> from_text("010", int), from_text("010", str), from_text("8, 8", tuple[int, ...])
        (10, '010', [8, 8])
    """
    if text in ("null", "None"):
        return None
    if _kinds.is_list(kind):
        return from_texts([text], kind) if text.strip() else text
    if _kinds.is_text(kind) or not text.strip():
        return text
    if kind is bool and text.lower() in _WORDS:
        return _WORDS[text.lower()]
    return _yaml.read(text)


def from_texts(texts: Iterable[str], kind: Any) -> list[Any]:
    """Parse values of a list, in one word or several."""
    words: list[str] = []
    for text in texts:
        text = text.strip()
        if (text[:1], text[-1:]) in (("[", "]"), ("(", ")")):
            text = text[1:-1]
        words += [word for word in re.split(r"[,\s]+", text) if word]
    inner = _kinds.element(kind)
    return [from_text(_QUOTED.sub(r"\2", word), inner) for word in words]


def _read(file: Path, kinds: Mapping[str, Any]) -> dict[str, Any]:
    try:
        text = read_regular(file, _LARGEST).decode("utf-8-sig")
        return _yaml.read(text, lambda loader, node: _settings(loader, node, kinds)) or {}
    except DoubtError as error:
        raise ValueError(f"{file} {error}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text; save it as UTF-8.") from error
    except OSError as error:
        raise ValueError(f"{file} cannot be read as YAML ({error.strerror or error}).") from error


def _settings(loader: _yaml.Loader, node: yaml.Node, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Values by name; literal text such as 001 or on is not interpreted."""
    found: dict[str, Any] = {}
    if not isinstance(node, yaml.MappingNode):
        if (value := loader.construct_object(node, deep=True)) is None:
            return found
        raise DoubtError(
            f"needs settings as `name: value`, got a {type(value).__name__}; see "
            "`cpic brats --print_config`"
        )
    for key, value in _yaml.pairs(loader, node):
        kind = kinds.get(key.value, Any)
        if isinstance(kind, Mapping) and isinstance(value, yaml.MappingNode):
            found[key.value] = _settings(loader, value, kind)
        else:
            found[key.value] = _written(loader, value, Any if isinstance(kind, Mapping) else kind)
    return found


def _written(loader: _yaml.Loader, node: yaml.Node, kind: Any) -> Any:
    if isinstance(node, yaml.SequenceNode) and _kinds.is_list(kind):
        return [_written(loader, one, _kinds.element(kind)) for one in node.value]
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    if plain and kind is not Any and node.value.strip() and node.value != "~":
        return from_text(node.value, kind)
    return loader.construct_object(node, deep=True)
