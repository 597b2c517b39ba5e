"""The console command `cpic`."""

import ast
import json
import sys
from collections.abc import Sequence
from typing import Any

from cpic.cli import _train

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the console command and return its exit code.

    Example:
        >>> main(["--version"])  # doctest: +ELLIPSIS
        cpic ...
        0
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments in (["--version"], ["-V"]):
        # Answered without the parser, so that it works where only the core is installed.
        from cpic import __version__

        print(f"cpic {__version__}")
        return 0
    if arguments and arguments[0] in _train.HELP:
        return _train.run(arguments[0], arguments[1:])
    try:
        parser = _parser()
    except ImportError:
        print("the command `cpic` needs jsonargparse; pip install 'cpic[book]'", file=sys.stderr)
        return 2
    options = parser.parse_args(arguments)
    if options.command == "data":
        return _data_check(options.data.check)
    return _book_run(options.book.run)


def _parser() -> Any:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog="cpic", description="Tensor trains from few entries, and the book."
    )
    parser.add_argument("-V", "--version", action="store_true", help="print the version and leave")
    commands = parser.add_subcommands(dest="command")
    for name, text in _train.HELP.items():
        # Only listed here: their flags need the training code, which takes seconds to load.
        commands.add_subcommand(name, ArgumentParser(description=text), help=text)
    book = ArgumentParser(description="The chapters of the book.")
    commands.add_subcommand("book", book, help="run chapters of the book")
    run = ArgumentParser(description="Run chapters of the book and report seconds and memory.")
    book.add_subcommands(dest="command").add_subcommand("run", run)
    run.add_argument("chapters", nargs="*", default=[], help="names or numbers; default: all")
    run.add_argument("--mode", choices=("quick", "full"), default="quick")
    run.add_argument("--out", default="_build/runs", help="folder of the executed notebooks")
    run.add_argument("--cell_timeout", type=int, default=300, help="seconds a cell may take")
    run.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter of the chapters; may be repeated",
    )
    data = ArgumentParser(description="Data sets on this machine.")
    commands.add_subcommand("data", data, help="check data sets on this machine")
    check = ArgumentParser(description="Name what is missing or broken, patient by patient.")
    data.add_subcommands(dest="command").add_subcommand("check", check)
    check.add_argument("root", help="folder of BraTS 2020 or OSIC, or the one above")
    check.add_argument("--kind", choices=("auto", "brats", "osic"), default="auto")
    check.add_argument("--deep", action="store_true", help="read every voxel, not headers only")
    check.add_argument("--json", default=None, help="file for a report in JSON")
    return parser


def _book_run(options: Any) -> int:
    from cpic import run

    try:
        results = run.run_chapters(
            options.chapters,
            out=options.out,
            mode=options.mode,
            parameters={name: _value(text) for name, text in options.parameter},
            cell_timeout=options.cell_timeout,
            report=lambda r: print(
                f"{r.chapter}: {r.error or 'ok'} ({r.seconds:.1f} s)", flush=True
            ),
        )
    except (ValueError, FileNotFoundError) as error:
        print(f"cpic book run: {error}", file=sys.stderr)
        return 2
    print(run.summary_table(results))
    print(f"notebooks and summary.json: {options.out}")
    return int(any(result.error for result in results))


def _data_check(options: Any) -> int:
    from pathlib import Path

    from cpic.data import cohorts

    shown = sys.stderr.isatty()
    found = cohorts.check_cohort(options.root, kind=options.kind, deep=options.deep, progress=shown)
    print(found)
    if options.json:
        try:
            Path(options.json).write_text(json.dumps(found.to_json(), indent=1) + "\n", "utf-8")
        except OSError as error:
            print(f"cpic data check: {options.json}: {error.strerror}", file=sys.stderr)
            return 2
    return int(not found.ok)


def _value(text: str) -> Any:
    """A Python literal where the text is one, else the text itself.

    >>> _value("3"), _value("1e-3"), _value("full"), _value("true")
    (3, 0.001, 'full', True)
    """
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
