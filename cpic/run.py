"""Run chapters of the book with chosen parameters and report what they cost.

Each chapter runs in its own kernel; its executed copy, partial where a cell failed, goes to the
output folder beside `summary.json`, which is rewritten whole after every chapter.
"""

import ast
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["ChapterRun", "find_chapters", "provenance", "run_chapters", "summary_table"]

MODES = ("quick", "full")


@dataclass(frozen=True)
class ChapterRun:
    """What happened to one chapter: `error` is empty when it ran to its end."""

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
        f"there is no chapter {name!r}; choose of {', '.join(p.stem for p in known) or 'none'}."
    )


def run_chapters(
    chapters: Sequence[str | Path] = (),
    *,
    out: str | Path,
    mode: str = "quick",
    parameters: Mapping[str, Any] | None = None,
    cell_timeout: int = 300,
    progress: bool | None = None,
    report: Callable[[ChapterRun], None] | None = None,
) -> list[ChapterRun]:
    """Run chapters through papermill, one after the other, and go on when one fails.

    Args:
        chapters: Names, numbers or paths, see `find_chapters`.
        out: Folder of the executed copies and of `summary.json`; made if missing.
        mode: `quick` or `full`, the chapters' parameter `MODE`.
        parameters: More parameters by name; every chapter must know all of them.
        cell_timeout: Seconds that one cell may take.
        progress: Show a bar; by default when standard error is a terminal.
        report: Called with each result when it is there.

    Returns:
        One `ChapterRun` a chapter. Nothing is raised for a chapter that fails.

    Raises:
        ValueError: If a parameter or the mode is unknown; nothing has run then.
        FileNotFoundError: If there is no such chapter.

    Example:
        >>> runs = run_chapters(["01_low_rank"], out="_build/runs")  # doctest: +SKIP
    """
    if mode not in MODES:
        raise ValueError(f"running the book needs mode quick or full, got {mode!r}.")
    paths = find_chapters([str(chapter) for chapter in chapters])
    given = {"MODE": mode, **(parameters or {})}
    for path in paths:
        _check_parameters(path, given)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    shown = sys.stderr.isatty() if progress is None else progress
    results: list[ChapterRun] = []
    for path in paths:
        results.append(_run_one(path, folder / path.name, given, cell_timeout, shown))
        _write_json(folder / "summary.json", [asdict(result) for result in results])
        if report:
            report(results[-1])
    return results


def _check_parameters(path: Path, given: Mapping[str, Any]) -> None:
    # papermill itself only warns of an unknown name: a typo would run with the default.
    known = _known_parameters(path)
    if unknown := [name for name in given if name not in known]:
        raise ValueError(
            f"{path.name} has no parameter {', '.join(unknown)}; it knows {', '.join(known)}."
        )


def _known_parameters(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        if "parameters" in cell["metadata"].get("tags", []):
            nodes = ast.parse("".join(cell["source"])).body
            plain = [t for n in nodes if isinstance(n, ast.Assign) for t in n.targets]
            typed = [n.target for n in nodes if isinstance(n, ast.AnnAssign)]
            return [t.id for t in [*plain, *typed] if isinstance(t, ast.Name)]
    return []


def _run_one(
    path: Path, output: Path, parameters: Mapping[str, Any], timeout: int, progress: bool
) -> ChapterRun:
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from papermill.exceptions import PapermillException

    output.unlink(missing_ok=True)
    begin, error = time.perf_counter(), ""
    with _PeakMemory() as memory:
        try:
            papermill.execute_notebook(
                str(path),
                str(output),
                parameters=dict(parameters),
                kernel_name="python3",
                language="python",
                cwd=str(path.resolve().parent),
                progress_bar=progress,
                execution_timeout=timeout,
            )
        except (PapermillException, TimeoutError, RuntimeError, NoSuchKernel) as caught:
            # A dead kernel and a cell that takes too long are none of papermill's exceptions.
            error = _first_line(caught)
    seconds = time.perf_counter() - begin
    mode = str(parameters["MODE"])
    return ChapterRun(path.stem, mode, seconds, memory.peak_mib, str(output), error)


def _first_line(error: BaseException) -> str:
    name, value = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", error)
    cell = getattr(error, "cell_index", None)
    place = "" if cell is None else f"cell {cell}: "
    lines = [line.strip() for line in str(value).splitlines() if line.strip()]
    return f"{place}{name}: {lines[0] if lines else ''}"


class _PeakMemory:
    """The largest resident memory of the kernel that runs while this is entered."""

    def __init__(self):
        self.peak_mib = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        me, kernel = psutil.Process(), None
        while not self._done.wait(0.02):
            try:
                kernel = kernel or _kernel_of(me)
                if kernel is not None:
                    self.peak_mib = max(self.peak_mib, _peak_mib(kernel.pid))
            except psutil.Error:
                kernel = None


def _kernel_of(process: Any) -> Any:
    for child in process.children():
        if any("ipykernel" in word for word in child.cmdline()):
            return child
    return None


def _peak_mib(pid: int) -> float:
    """Peak resident memory; Linux keeps it, elsewhere it is what is seen now."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        import psutil

        return psutil.Process(pid).memory_info().rss / 2**20 if psutil.pid_exists(pid) else 0.0


def _write_json(path: Path, content: Any) -> None:
    draft = path.with_suffix(".json.part")
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(draft, path)


def summary_table(results: Sequence[ChapterRun]) -> str:
    """Chapters with seconds and peak memory as lines of text.

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
    """What a chapter prints last: settings, versions, seconds and peak memory of its kernel.

    Args:
        **settings: What to name besides, for example `mode=MODE, seed=SEED, device=DEVICE`.

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
            f"{seconds:.0f} s since the kernel started, {_peak_mib(process.pid):.0f} MiB at most, "
            f"{os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}",
        ]
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
