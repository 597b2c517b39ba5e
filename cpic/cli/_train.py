"""The commands that train and predict: `cpic brats`, `osic`, `baseline` and `predict`."""

import contextlib
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cpic.cli import _flags

HELP = {
    "brats": "train C-PIC on BraTS: survival from MRI",
    "osic": "train C-PIC on OSIC: the course of a lung fibrosis",
    "baseline": "train resnet34, tt_mlp, downsample or histogram on the same folds",
    "predict": "predictions of a checkpoint for a folder of scans",
}


def run(command: str, arguments: Sequence[str]) -> int:
    """Run one of these commands and return its exit code; raises what ended it."""
    try:
        import jsonargparse  # noqa: F401

        from cpic import train
        from cpic.train.loop._distributed import is_first
    except ImportError as error:
        raise ImportError(
            f"it needs {error.name or error}; pip install 'cpic[train,data]'"
        ) from error
    function: Callable[..., Any] = getattr(train, command)
    options = _options(command, function, arguments)
    if options is None:
        return 0
    first = is_first()
    with _log_to_stderr(first):
        text = _call(command, function, options, first)
    if first:
        print(text)
    return 0


def _call(command: str, function: Callable[..., Any], options: dict[str, Any], first: bool) -> str:
    """Run it; what there is to say at the end."""
    if command == "predict":
        return f"predictions: {function(**options)}"
    options["progress"] = first and (options["progress"] or sys.stderr.isatty())
    return _table(function(**options))


def _options(
    command: str, function: Callable[..., Any], arguments: Sequence[str]
) -> dict[str, Any] | None:
    """Arguments of the function: files in order, then flags; None where that was all to do."""
    from cpic.options import _kinds

    kinds = _kinds.kinds_of(function)
    flags = _flags.split(command, arguments, kinds)
    if "help" in flags.alone:
        _parser(command, function).parse_args(["--help"])
    given = _flags.settings(flags, command, kinds)
    signature = inspect.signature(function).parameters
    defaults = {k: p.default for k, p in signature.items() if p.default is not p.empty}
    if lacking := [f"--{name}" for name in signature if name not in {**defaults, **given}]:
        raise ValueError(f"it needs {', '.join(lacking)} as well; see cpic {command} --help.")
    options = {name: {**defaults, **given}[name] for name in signature}
    if "print_config" in flags.alone:
        print(_as_yaml(options), end="")
        return None
    return options


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
def _log_to_stderr(first: bool) -> Iterator[None]:
    log, level = logging.getLogger("cpic"), logging.getLogger("cpic").level
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    # All processes do the same; one of them says it.
    log.setLevel(logging.INFO if first else logging.ERROR)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _table(results: Sequence[Any]) -> str:
    names = list(results[0].metrics) if results else []
    lines = ["fold  epochs  seconds  " + "  ".join(f"{name:>12}" for name in names)]
    for one in results:
        values = "  ".join(f"{one.metrics[name]:>12.4f}" for name in names)
        lines.append(f"{one.fold:>4}  {one.epochs:>6}  {one.seconds:>7.0f}  {values}")
    return "\n".join(lines)
