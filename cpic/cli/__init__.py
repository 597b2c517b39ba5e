"""The console command `cpic`."""

import functools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cpic.cli import _console

__all__ = ["main"]

_PARAMETER = ("-p", "--parameter")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the console command and return its exit code: 2, with a one-line message, on an error.

    Example:
        >>> main(["--version"])  # doctest: +ELLIPSIS
        cpic ...
        0
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    # The words before the first flag, such as `book run`.
    name = " ".join(["cpic", *words[: 1 + (words[:1] in (["book"], ["data"]))]])
    return _console.ended(functools.partial(_run, words), name if words else "cpic")


def _run(words: list[str]) -> int:
    if words in (["--version"], ["-V"]):
        # Answered without the parser, so that it works where only the core package is installed.
        from cpic import __version__

        print(f"cpic {__version__}")
        return 0
    try:
        os.getcwd()
    except FileNotFoundError as error:  # torch could not even be imported
        raise ValueError("the current folder was deleted; change to one that exists.") from error
    try:
        from cpic import train
        from cpic.cli import _train

        # Training commands parse their own flags.
        parser = None if words and words[0] in train.COMMANDS else _parser(train.COMMANDS)
    except ImportError as error:
        advice = "pip install 'cpic[train,data]' or 'cpic[book]'"
        raise ImportError(f"it needs {error.name or error}; {advice}") from error
    if parser is None:
        return _train.run(words[0], words[1:], train.COMMANDS)
    words, texts = _parameters(words)
    options = parser.parse_args(words)
    if options.command == "advise":
        return _advise(options.advise)
    if options.command == "data":
        return _data_check(options.data.check)
    return _book_run(options.book.run, texts)


def _parameters(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Split off the parameters by name: a value may look like a flag."""
    others: list[str] = []
    texts: dict[str, str] = {}
    left = iter(words)
    for word in left:
        if word not in _PARAMETER:
            others.append(word)
            continue
        name, text = next(left, None), next(left, None)
        if name is None or text is None:
            raise ValueError(f"{word} needs a name and a value, got {name or 'none'}.")
        if name in texts:
            raise ValueError(f"the parameter {name} is given twice; leave one out.")
        texts[name] = text
    return others, texts


def _parser(trained: Mapping[str, Any]) -> Any:
    import jsonargparse
    from jsonargparse.typing import PositiveInt

    new = functools.partial(
        jsonargparse.ArgumentParser, exit_on_error=False, allow_abbrev=False, add_help=True
    )
    parser = new(
        prog="cpic",
        description="Train C-PIC, ask which part to read, check data, and run the book.",
    )
    parser.add_argument("-V", "--version", action="store_true", help="print the version and exit")
    commands = parser.add_subcommands(dest="command")
    for name, one in trained.items():
        # Only listed here: these commands parse their own flags.
        commands.add_subcommand(name, new(), help=one.command.summary)
    book = new(description="The chapters of the book.")
    commands.add_subcommand("book", book, help="run chapters of the book")
    run = new(description="Run chapters of the book and report time and memory.")
    book.add_subcommands(dest="command").add_subcommand("run", run)
    run.add_argument("chapters", nargs="*", default=[], help="names or numbers; all by default")
    run.add_argument("--mode", choices=("quick", "full"), default="quick")
    run.add_argument("--out", default="_build/runs", help="folder for the executed notebooks")
    run.add_argument(
        "--cell_timeout", type=PositiveInt, default=300, help="time limit of a cell in seconds"
    )
    run.add_argument("--jobs", type=PositiveInt, default=1, help="chapters to run in parallel")
    # Only for the help text: `_parameters` has already removed them.
    run.add_argument(
        *_PARAMETER,
        nargs=2,
        metavar=("NAME", "VALUE"),
        help="set a parameter of the chapters; may be repeated",
    )
    advise = new(description="Measure a volume on few voxels, and say which part of it to read.")
    commands.add_subcommand("advise", advise, help="say which part of a volume to read")
    advise.add_argument("scan", help="a file or folder that cpic.data.open_volume opens")
    advise.add_argument(
        "--budget", type=float, default=0.01, help="voxels to read: a number, or a share up to 1"
    )
    advise.add_argument("--channel", type=int, default=0, help="which channel is measured")
    advise.add_argument("--probes", type=PositiveInt, default=512, help="random voxels to measure")
    advise.add_argument("--seed", type=int, default=0, help="of the random voxels")
    advise.add_argument("--json", action="store_true", help="print the advice as JSON")
    data = new(description="Data sets on this machine.")
    commands.add_subcommand("data", data, help="check data sets on this machine")
    check = new(description="List missing or broken files, patient by patient.")
    data.add_subcommands(dest="command").add_subcommand("check", check)
    check.add_argument("root", help="folder of BraTS 2020 or OSIC, or its parent")
    check.add_argument("--kind", choices=("auto", "brats", "osic"), default="auto")
    check.add_argument("--deep", action="store_true", help="read every voxel, not only headers")
    check.add_argument("--json", default=None, help="file for a report as JSON")
    return parser


def _book_run(options: Any, texts: dict[str, str]) -> int:
    from cpic import run

    results = run.run_chapters(
        options.chapters,
        out=options.out,
        mode=options.mode,
        parameters=run.read_parameters(options.chapters, texts) if texts else {},
        cell_timeout=options.cell_timeout,
        jobs=options.jobs,
        report=lambda r: print(f"{r.chapter}: {r.error or 'ok'} ({r.seconds:.1f} s)", flush=True),
    )
    print(run.summary_table(results))
    print(f"notebooks and summary.json: {options.out}")
    return int(any(result.error for result in results))


def _advise(options: Any) -> int:
    import torch

    from cpic.choose import advise
    from cpic.data import open_volume

    budget = options.budget
    found = advise(
        open_volume(options.scan),
        budget=int(budget) if budget > 1 and budget.is_integer() else budget,
        generator=torch.Generator().manual_seed(options.seed),
        n_probes=options.probes,
        channel=options.channel,
    )
    print(json.dumps(found.plain(), indent=1) if options.json else found)
    return 0


def _data_check(options: Any) -> int:
    from cpic import cohorts

    shown = sys.stderr.isatty()
    found = cohorts.check_cohort(
        options.root,
        kind=options.kind,
        deep=options.deep,
        progress=shown,
        report=options.json or None,
    )
    print(found)
    return int(not found.ok)
