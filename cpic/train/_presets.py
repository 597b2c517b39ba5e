"""Settings from YAML files, merged in order, with every key checked."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

COMMANDS = ("brats", "osic", "baseline")


def preset_names() -> list[str]:
    """Names of the settings that come with the package.

    Example:
        >>> "quick" in preset_names()
        True
    """
    folder = resources.files("cpic.train") / "presets"
    return sorted(entry.name[:-4] for entry in folder.iterdir() if entry.name.endswith(".yml"))


def preset_file(name: str) -> Path:
    """The file of a preset.

    Raises:
        ValueError: If there is none of this name.
    """
    known = preset_names()
    if name not in known:
        raise ValueError(
            f"there is no preset {name!r}{_nearest(name, known)}; the presets are "
            f"{', '.join(known)}."
        )
    return Path(str(resources.files("cpic.train") / "presets" / f"{name}.yml"))


def read_settings(
    files: Iterable[str | Path], command: str, known: Sequence[str]
) -> dict[str, Any]:
    """Settings of one command from YAML files; a later file wins.

    A file maps names of arguments to values. A key that is the name of a command holds settings of
    that command only, and `command` says which one a file is for.

    Args:
        files: Paths.
        command: "brats", "osic" or "baseline".
        known: Names of its arguments.

    Raises:
        ValueError: If a file cannot be read, is for another command, or has an unknown key.
    """
    merged: dict[str, Any] = {}
    for file in files:
        content = _read(Path(file))
        meant = content.pop("command", command)
        if meant != command:
            raise ValueError(
                f"{file} has settings of `cpic {meant}`, got `cpic {command}`; run that one."
            )
        own: Mapping[str, Any] = {}
        for section in COMMANDS:
            part = content.pop(section, {})
            if not isinstance(part, dict):
                raise ValueError(f"{file} needs a mapping under {section!r}, got {part!r}.")
            own = part if section == command else own
        content.update(own)
        for key in content:
            check_name(key, known, where=f"{file}")
        merged.update(content)
    return merged


def check_name(name: object, known: Sequence[str], *, where: str) -> None:
    """Raise unless a setting is known; the message names the nearest that is.

    Raises:
        ValueError: If it is not.
    """
    if name not in known:
        raise ValueError(
            f"{where}: there is no setting {str(name)!r}{_nearest(str(name), known)}; the settings "
            f"are {', '.join(sorted(known))}."
        )


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} cannot be read as YAML ({reason}).") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(
            f"{file} needs settings as `name: value`, got a {type(content).__name__}; see "
            "`cpic brats --print_config`."
        )
    return content
