"""Executed chapters: each is run once for a state of the package, side by side with others.

Their outputs lie in the cache from which the site is built (jupyter-cache), so that neither the
site nor the tests run a chapter again.
"""

import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract

from cpic.run import ChapterRun, find_chapters, run_chapters

ROOT = Path(__file__).resolve().parents[1]
CELL_SECONDS = 900  # a cell takes a minute at most on a machine that has nothing else to do


def cache() -> JupyterCacheAbstract:
    """The cache that belongs to the package as it is now."""
    spec = importlib.util.spec_from_file_location("cpic_book", ROOT / "book/_ext/cpic_book.py")
    extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)
    folder = extension.cache_folder(ROOT, ROOT / "_build")
    folder.mkdir(parents=True, exist_ok=True)
    return get_cache(str(folder))


def read(
    path: Path, store: JupyterCacheAbstract | None = None
) -> tuple[nbformat.NotebookNode, dict]:
    """A chapter with its outputs, and what running it cost: `seconds` and `peak_mib`.

    Raises:
        KeyError: If it has not been run since it or the package changed.
    """
    store, notebook = store or cache(), nbformat.read(path, as_version=4)
    record = store.match_cache_notebook(notebook)
    return store.merge_match_into_notebook(notebook)[1], record.data


def run_stale(*, jobs: int | None = None, tell: Callable[[str], None] = print) -> list[ChapterRun]:
    """Run the chapters that have no outputs yet, and return those that failed.

    Args:
        jobs: how many side by side, by default one a core.
        tell: called with one line whenever a chapter ends.
    """
    # One for all: a package that changes while they run does not get the outputs of the old one.
    store = cache()
    left = [path for path in find_chapters() if not _is_known(path, store)]
    if not left:
        return []
    jobs = min(len(left), jobs or _cores())
    # Small batched matrices are quickest on one thread, and many times slower on several threads
    # of a machine that has other work as well. Pages show the pre-rendered slider.
    for name, value in (("OMP_NUM_THREADS", "1"), ("CPIC_EXPLORE", "static")):
        os.environ.setdefault(name, value)
    begin, failed, todo = time.perf_counter(), [], [path.stem for path in left]
    tell(_progress(todo, jobs, begin))

    def report(result: ChapterRun) -> None:
        todo.remove(result.chapter)
        if result.error:
            failed.append(result)
        else:
            keep(ROOT / "book" / f"{result.chapter}.ipynb", result, store)
        tell(f"{result.chapter} {result.error or f'in {result.seconds:.0f} s'}")
        if todo:
            tell(_progress(todo, jobs, begin))

    with tempfile.TemporaryDirectory() as out:
        run_chapters(
            [str(path) for path in left],
            out=out,
            jobs=jobs,
            cell_timeout=CELL_SECONDS,
            progress=False,
            report=report,
        )
    return failed


def keep(path: Path, result: ChapterRun, store: JupyterCacheAbstract) -> None:
    """Put the outputs of an executed copy into the cache, under the cells of the source."""
    source = nbformat.read(path, as_version=4)
    executed = nbformat.read(result.output, as_version=4)
    cells = [c for c in executed.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    for cell, ran in zip(source.cells, cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
    cost = {"execution_seconds": result.seconds, "peak_mib": result.peak_mib}
    store.cache_notebook_bundle(
        CacheBundleIn(source, str(path), data=cost), check_validity=False, overwrite=True
    )


def _cores() -> int:
    """Cores that this process may use; macOS tells only how many there are."""
    may_use = getattr(os, "sched_getaffinity", None)
    return len(may_use(0)) if may_use else os.cpu_count() or 1


def _is_known(path: Path, store: JupyterCacheAbstract) -> bool:
    try:
        read(path, store)
    except KeyError:
        return False
    return True


def _progress(todo: list[str], jobs: int, begin: float) -> str:
    now, rest = todo[:jobs], len(todo) - jobs
    left = f", {rest} more to run" if rest > 0 else ""
    return f"[{time.perf_counter() - begin:4.0f} s] running {', '.join(now)}{left}"
