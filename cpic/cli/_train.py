"""The commands that train and predict, as listed in `cpic.train`."""

import contextlib
import csv
import dataclasses
import json
import logging
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cpic.cli import _flags
from cpic.options import _kinds
from cpic.options._command import REQUIRED, Command
from cpic.options._groups import Group

Commands = Mapping[str, Callable[..., Any]]


def run(name: str, words: Sequence[str], commands: Commands) -> int:
    """Run one of these commands and return its exit code; raises what ended it."""
    function: Any = commands[name]
    command: Command = function.command
    flags = _flags.split(command, words)
    if "help" in flags.alone:
        _parser(command).parse_args(["--help"])
    given = _flags.settings(flags, command, commands)
    required = [key for key, one in command.options.items() if one.default is REQUIRED]
    if lacking := [f"--{key}" for key in required if key not in given]:
        raise ValueError(f"it needs {', '.join(lacking)} as well; see cpic {name} --help.")
    options = command.arguments(given)
    if "print_config" in flags.alone:
        print(_as_yaml(options), end="")
        return 0
    return _run(function, options)


def _run(function: Callable[..., Any], options: dict[str, Any]) -> int:
    try:
        from cpic.train.loop import _fit  # noqa: F401
        from cpic.train.loop._distributed import is_first
    except ImportError as error:
        raise ImportError(
            f"it needs {error.name or error}; pip install 'cpic[train,data]'"
        ) from error
    first = is_first()
    if "run" in options:
        shown = first and (options["run"].progress or sys.stderr.isatty())
        options["run"] = dataclasses.replace(options["run"], progress=shown)
    with _log_to_stderr(first):
        result = function(**options)
    if not first:
        return 0
    return _predicted(result) if isinstance(result, Path) else _trained(result)


def _as_yaml(options: Mapping[str, Any]) -> str:
    import yaml

    plain = {k: one.plain() if isinstance(one, Group) else one for k, one in options.items()}
    return yaml.safe_dump(plain, sort_keys=False)


def _parser(command: Command) -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"cpic {command.name}", description=command.summary, allow_abbrev=False
    )
    if command.groups:
        parser.epilog = "A flag may also follow the name of its group, as in --optimization.lr."
        parser.add_argument("--config", metavar="FILE", help="YAML settings file; may be repeated")
        parser.add_argument("--preset", metavar="NAME", help="settings that come with the package")
        parser.add_argument(
            "--print_config", action="store_true", help="print all settings as YAML and exit"
        )
    places = {name: parser.add_argument_group(name) for name in command.groups} | {"": parser}
    short = {long: name for name, long in _flags.short_flags(command).items()}
    for name, one in command.options.items():
        names = [n for n in (short.get(f"--{name}"), f"--{name}") if n]
        default = "needed"
        if one.default is not REQUIRED:
            default = "default: " + json.dumps(one.default, default=str).strip('"')
        text = f"{one.doc} ({_kinds.described(one.kind)}; {default})"
        places[one.group].add_argument(*names, metavar=name.upper(), help=text)
    return parser


@contextlib.contextmanager
def _log_to_stderr(first: bool) -> Iterator[None]:
    log, level = logging.getLogger("cpic"), logging.getLogger("cpic").level
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    # All processes run the fold; one of them prints.
    log.setLevel(logging.INFO if first else logging.ERROR)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _trained(results: Sequence[Any]) -> int:
    names = list(results[0].metrics) if results else []
    print("fold  epochs  seconds  " + "  ".join(f"{name:>12}" for name in names))
    for one in results:
        values = "  ".join(f"{one.metrics[name]:>12.4f}" for name in names)
        print(f"{one.fold:>4}  {one.epochs:>6}  {one.seconds:>7.0f}  {values}")
    return 0


def _predicted(table: Path) -> int:
    print(f"predictions: {table}")
    with table.open(newline="", encoding="utf-8") as file:
        if all(row["reason"] for row in csv.DictReader(file)):
            print("cpic predict: no patient could be predicted; see the table.", file=sys.stderr)
            return 1
    return 0
