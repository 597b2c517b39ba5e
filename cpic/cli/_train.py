"""The commands that train and predict: `cpic brats`, `osic`, `baseline` and `predict`."""

import contextlib
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

HELP = {
    "brats": "train C-PIC on BraTS: survival from MRI",
    "osic": "train C-PIC on OSIC: the course of a lung fibrosis",
    "baseline": "train resnet34, tt_mlp, downsample or histogram on the same folds",
    "predict": "predictions of a checkpoint for a folder of scans",
}
# Short flags and names of the published scripts.
_OLD = {
    "-b": "--batch_size",
    "-d": "--root",
    "--dataset_location": "--root",
    "-r": "--results_folder",
    "-e": "--num_epochs",
    "-n": "--experiment_name",
}
# Values that follow each other, in one flag or several.
_LISTS = ("--resolution", "--contrasts", "--weeks")
_FILES = ("--config", "--preset")
_MORE = (*_FILES, "--print_config", "--help", "-h")


def run(command: str, arguments: Sequence[str]) -> int:
    """Run one of these commands and return its exit code; raises what ended it."""
    try:
        import jsonargparse  # noqa: F401

        from cpic import train
    except ImportError as error:
        raise ImportError(
            f"it needs {error.name or error}; pip install 'cpic[train,data]'"
        ) from error
    function: Callable[..., Any] = getattr(train, command)
    options = _options(command, function, _expanded(command, arguments))
    if options is None:
        return 0
    with _log_to_stderr():
        text = _call(command, function, options)
    if _first():
        print(text)
    return 0


def _call(command: str, function: Callable[..., Any], options: dict[str, Any]) -> str:
    """Run it; what there is to say at the end."""
    if command == "predict":
        path = function(options.pop("checkpoint"), options.pop("scans"), **options)
        return f"predictions: {path}"
    options["progress"] = _first() and (options["progress"] or sys.stderr.isatty())
    return _table(function(**options))


def _expanded(command: str, arguments: Sequence[str]) -> list[str]:
    """Flags as `--name=value`, old names replaced, lists as JSON."""
    found: list[str] = []
    lists: dict[str, list[str]] = {}
    words = list(arguments)
    if command == "baseline" and words and not words[0].startswith("-"):
        words[0] = f"--name={words[0]}"
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        name = _OLD.get(name, name)
        if name in ("-s", "--system_path"):
            raise ValueError("there is no --system_path; give the folder of the data by --root.")
        values = [value] if equals else []
        if name in _LISTS:
            while not equals and words and not _is_flag(words[0]):
                values.append(words.pop(0))
            lists.setdefault(name, []).extend(values)
            continue
        if name.startswith("--") and not equals and words and not _is_flag(words[0]):
            values = [words.pop(0)]
        found.append(f"{name}={values[0]}" if values else name)
    return found + [f"{name}={_as_list(values)}" for name, values in lists.items()]


def _is_flag(word: str) -> bool:
    """Whether it is no value; a negative number is one."""
    return word.startswith("-") and not word[1:2].isdigit()


def _as_list(values: list[str]) -> str:
    if len(values) == 1 and values[0].lstrip().startswith(("[", "(")):
        return values[0].replace("(", "[").replace(")", "]")
    parts = [part for value in values for part in value.split(",") if part]
    numbers = all(part.removeprefix("-").replace(".", "", 1).isdigit() for part in parts)
    return "[" + ",".join(part if numbers else json.dumps(part) for part in parts) + "]"


def _options(
    command: str, function: Callable[..., Any], arguments: list[str]
) -> dict[str, Any] | None:
    """Arguments of the function: files in order, then flags; None where that was all to do."""
    from cpic.train import _presets

    parser = _parser(command, function)
    known = list(inspect.signature(function).parameters)
    files: list[Path] = []
    flags: list[str] = []
    shown = False
    for word in arguments:
        name, _, value = word.partition("=")
        if name in _FILES:
            files.append(_presets.preset_file(value) if name == "--preset" else Path(value))
        elif name == "--print_config":
            shown = True
        else:
            if name not in _MORE and name.startswith("--"):
                _presets.check_name(name[2:].split(".")[0], known, where="the command line")
            flags.append(word)
    settings = _presets.read_settings(files, command, known)
    # As flags in front, so that they are checked like flags and lose against them.
    parsed = parser.parse_args([*(_flag(k, v) for k, v in settings.items()), *flags])
    options = {name: _plain(value) for name, value in parsed.as_dict().items() if name in known}
    if shown:
        print(_as_yaml(options), end="")
        return None
    return options


def _flag(name: str, value: Any) -> str:
    return f"--{name}={value if isinstance(value, str) else json.dumps(value)}"


def _plain(value: Any) -> Any:
    """Lists as tuples, and names with dots as mappings in mappings."""
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, dict):
        return value
    nested: dict[str, Any] = {}
    for name, inner in value.items():
        *outer, last = str(name).split(".")
        place = nested
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = _read(inner)
    return nested


def _read(value: Any) -> Any:
    """The parser leaves what is below the first dot as text."""
    import yaml

    if isinstance(value, dict):
        return {name: _read(inner) for name, inner in value.items()}
    return yaml.safe_load(value) if isinstance(value, str) else value


def _as_yaml(options: dict[str, Any]) -> str:
    import yaml

    plain = {
        name: list(value)
        if isinstance(value, tuple)
        else str(value)
        if isinstance(value, Path)
        else value
        for name, value in options.items()
    }
    return yaml.safe_dump(plain, sort_keys=False)


def _parser(command: str, function: Callable[..., Any]) -> Any:
    from jsonargparse import ArgumentParser

    from cpic.train import brats

    parser = ArgumentParser(prog=f"cpic {command}", description=HELP[command], allow_abbrev=False)
    if command != "predict":
        parser.add_argument("--config", metavar="FILE", help="YAML of settings; may be repeated")
        parser.add_argument("--preset", metavar="NAME", help="settings that come with the package")
        parser.add_argument(
            "--print_config", action="store_true", help="print all settings as YAML and leave"
        )
    parser.add_function_arguments(function, as_positional=False)
    helps = {"name": "Model to train.", "task": "Cohort and what to predict.", **_helps(brats)}
    for action in parser._actions:
        if action.dest in helps and not (action.help or "").strip(" %"):
            action.help = helps[action.dest]
    return parser


def _helps(function: Callable[..., Any]) -> dict[str, str]:
    """What the docstring says of each argument."""
    from docstring_parser import parse_from_object

    found = parse_from_object(function).params
    return {one.arg_name: " ".join((one.description or "").split()) for one in found}


@contextlib.contextmanager
def _log_to_stderr() -> Iterator[None]:
    log, level = logging.getLogger("cpic"), logging.getLogger("cpic").level
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    # All processes do the same; one of them says it.
    log.setLevel(logging.INFO if _first() else logging.ERROR)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _first() -> bool:
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def _table(results: Sequence[Any]) -> str:
    names = list(results[0].metrics) if results else []
    lines = ["fold  epochs  seconds  " + "  ".join(f"{name:>12}" for name in names)]
    for one in results:
        values = "  ".join(f"{one.metrics[name]:>12.4f}" for name in names)
        lines.append(f"{one.fold:>4}  {one.epochs:>6}  {one.seconds:>7.0f}  {values}")
    return "\n".join(lines)
