"""Run chapters of the book with given parameters, and report time and memory.

Each chapter runs in its own kernel; its executed copy, partial if a cell failed, is written to the
output folder with `summary.json`, which is rewritten after every chapter.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from cpic import _notebooks
from cpic._files import write_json
from cpic._peak import PeakMemory, peak_mib

__all__ = [
    "ChapterRun",
    "find_chapters",
    "provenance",
    "read_parameters",
    "run_chapters",
    "summary_table",
]

MODES = ("quick", "full")


@dataclass(frozen=True)
class ChapterRun:
    """Result of one chapter: `error` is empty if it ran completely."""

    chapter: str
    mode: str
    seconds: float
    peak_mib: float
    output: str
    error: str = ""


def find_chapters(names: Sequence[str] = (), *, book: str | Path | None = None) -> list[Path]:
    """Notebooks by path, name (`03_cross`) or number (`3`); without names, all of the book.

    Raises:
        FileNotFoundError: If there is no book, or no such chapter.

    Example:
        >>> [path.stem for path in find_chapters(["3"])]  # doctest: +SKIP
        ['03_cross']
    """
    folder = Path(book) if book else Path(__file__).resolve().parents[1] / "book"
    known = sorted(p for p in folder.glob("*.ipynb") if not p.name.startswith("_"))
    if not known and not names:
        raise FileNotFoundError(
            f"running the book needs its notebooks, got none in {folder}; call from a clone."
        )
    return [_find(name, known) for name in names] if names else known


def _find(name: str, known: list[Path]) -> Path:
    if name.endswith(".ipynb") and Path(name).is_file():
        return Path(name)
    for path in known:
        number = path.stem.split("_")[0]
        if name in (path.stem, path.name, number) or number == name.zfill(2):
            return path
    raise FileNotFoundError(
        f"there is no chapter {name!r}; choose from {', '.join(p.stem for p in known) or 'none'}."
    )


def read_parameters(chapters: Sequence[str | Path], texts: Mapping[str, str]) -> dict[str, Any]:
    """Parse values for `run_chapters`: a Python literal, or text if text is expected.

    Text is expected if the default of the parameter in the chapter is text, so that `007` or `1.10`
    stay as they are.

    Raises:
        ValueError: If a file is not a notebook.
        FileNotFoundError: If there is no such chapter.

    Example:
        >>> read_parameters(["1"], {"SEED": "3"})  # doctest: +SKIP
        {'SEED': 3}
    """
    known = [_notebooks.parameters_of(p) for p in find_chapters([str(c) for c in chapters])]
    return {
        name: _notebooks.value_of(text, [own[name] for own in known if name in own])
        for name, text in texts.items()
    }


def run_chapters(
    chapters: Sequence[str | Path] = (),
    *,
    out: str | Path,
    mode: str = "quick",
    parameters: Mapping[str, Any] | None = None,
    cell_timeout: int = 300,
    jobs: int = 1,
    progress: bool | None = None,
    report: Callable[[ChapterRun], None] | None = None,
) -> list[ChapterRun]:
    """Run chapters through papermill, and continue if one fails.

    Args:
        chapters: Names, numbers or paths, see `find_chapters`.
        out: Folder for the executed copies and `summary.json`; created if missing. Outputs of
            earlier runs in it are replaced; any other file in the way is an error.
        mode: `quick` or `full`, the chapters' parameter `MODE`.
        parameters: Further parameters by name; every chapter must have all of them. Numbers, text,
            None, and lists, tuples and mappings of these.
        cell_timeout: Time limit of a cell in seconds.
        jobs: Number of chapters to run in parallel, each in its own process.
        progress: Show a progress bar; by default if standard error is a terminal.
        report: Called with each result as soon as it is available.

    Returns:
        One `ChapterRun` per chapter, in order. A chapter that fails does not raise.

    Raises:
        ValueError: If a parameter or the mode is unknown, or a file would be lost; raised before
            anything runs.
        FileNotFoundError: If there is no such chapter.

    Example:
        >>> runs = run_chapters(["01_low_rank"], out="_build/runs")  # doctest: +SKIP
    """
    given = {"MODE": mode, **(parameters or {})}
    if given["MODE"] not in MODES:
        raise ValueError(f"running the book needs mode quick or full, got {given['MODE']!r}.")
    for name, value in (("cell_timeout", cell_timeout), ("jobs", jobs)):
        if value < 1:
            raise ValueError(f"running the book needs {name} of at least 1, got {value}.")
    if not str(out):
        raise ValueError("running the book needs a folder for its output, got an empty out.")
    paths = find_chapters([str(chapter) for chapter in chapters])
    literals = _literals(paths, given)
    folder = Path(out)
    # The path to a folder that does not exist yet may change its meaning once it does: x/.. is one.
    _notebooks.check_outputs(paths, folder.resolve())
    _make(folder)
    shown = sys.stderr.isatty() if progress is None else progress
    results: dict[Path, ChapterRun] = {}
    rest = (given["MODE"], literals, cell_timeout, shown)
    for path, result in _run_all([(path, folder / path.name, *rest) for path in paths], jobs):
        results[path] = result
        done = [results[p] for p in paths if p in results]
        write_json(folder / "summary.json", [asdict(one) for one in done])
        if report:
            report(result)
    return [results[path] for path in paths]


def _literals(paths: Sequence[Path], given: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as Python source, after a check that every chapter has all of them."""
    for path in paths:
        # papermill only warns of an unknown name: a typo would run with the default.
        known = _notebooks.parameters_of(path)
        if unknown := [name for name in given if name not in known]:
            raise ValueError(
                f"{path.name} has no parameter {', '.join(unknown)}; it knows {', '.join(known)}."
            )
    literals: dict[str, str] = {}
    for name, value in given.items():
        try:
            literals[name] = _notebooks.literal(value)
        except ValueError as error:
            raise ValueError(f"the parameter {name} {error}.") from None
    return literals


def _make(folder: Path) -> None:
    """Create the folder and test that it is writable, before an hour of work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written ({error.strerror or error}); choose another folder by out."
        ) from error


def _run_all(orders: list[tuple], jobs: int) -> Iterator[tuple[Path, ChapterRun]]:
    """Results as they become available, each with the path of its chapter."""
    if jobs == 1:
        yield from ((order[0], _run_one(*order)) for order in orders)
        return
    # The kernel is identified as the only child of its process.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        paths = {pool.submit(_run_one, *order): order[0] for order in orders}
        yield from ((paths[future], future.result()) for future in as_completed(paths))


def _run_one(
    path: Path, output: Path, mode: str, literals: Mapping[str, str], timeout: int, progress: bool
) -> ChapterRun:
    from cpic._execute import execute

    begin = time.perf_counter()
    with PeakMemory() as memory:
        error = execute(path, output, literals, timeout=timeout, progress=progress)
    seconds = time.perf_counter() - begin
    return ChapterRun(path.stem, mode, seconds, memory.peak_mib, str(output), error)


def summary_table(results: Sequence[ChapterRun]) -> str:
    """Format chapters with time and peak memory as a table.

    Example:
        >>> print(summary_table([ChapterRun("03_cross", "quick", 12.34, 456.7, "out.ipynb")]))
        chapter   mode    seconds  peak MiB  result
        03_cross  quick      12.3       457  ok
    """
    width = max([7, *(len(r.chapter) for r in results)])
    lines = [f"{'chapter':<{width}}  mode    seconds  peak MiB  result"]
    for r in results:
        row = f"{r.chapter:<{width}}  {r.mode:<6}  {r.seconds:>7.1f}  {r.peak_mib:>8.0f}"
        lines.append(f"{row}  {r.error or 'ok'}")
    return "\n".join(lines)


def provenance(**settings: Any) -> str:
    """Print the footer of a chapter: settings, versions, time and peak memory of its kernel.

    Args:
        **settings: Further values to print, for example `mode=MODE, seed=SEED, device=DEVICE`.

    Example:
        >>> print(provenance(mode="quick", seed=0))  # doctest: +ELLIPSIS
        mode quick, seed 0
        cpic ...
    """
    import platform

    import psutil

    process = psutil.Process()
    names = ("cpic", "torch", "numpy", "matplotlib")
    seconds = time.time() - process.create_time()
    return "\n".join(
        [
            ", ".join(f"{name} {value}" for name, value in settings.items()),
            ", ".join(f"{name} {_version(name)}" for name in names)
            + f", Python {platform.python_version()}",
            f"{seconds:.0f} s since the kernel started, {peak_mib(process.pid):.0f} MiB at most, "
            f"{os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}",
        ]
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
