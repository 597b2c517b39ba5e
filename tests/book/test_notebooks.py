"""All notebooks as a reader runs them, and their stored numbers."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from cpic.run import ChapterRun, find_chapters, run_chapters
from tests.book.conftest import ROOT

MAX_PEAK_MIB = 4096
BUDGET_SECONDS = 60

pytestmark = [
    pytest.mark.book,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="session")
def read(site):
    """A chapter as the build has run it, with what that cost: nothing is run twice."""
    import executed

    return executed.read


def texts(cell) -> list[str]:
    """What a cell says: its streams joined, and the text of its values."""
    streams = {"stdout": "", "stderr": ""}
    values = []
    for output in cell.outputs:
        if output.output_type == "stream":
            streams[output.name] += output.text
        elif "data" in output:
            values.append(output.data.get("text/plain", ""))
        else:
            values.append(f"{output.ename}: {output.evalue}")
    return [*streams.values(), *values]


def faults(stored, ran) -> list[str]:
    """Cells to be compared (as nbval does) whose stored output is another, and errors."""
    found = []
    for number, (old, new) in enumerate(zip(stored.cells, ran.cells, strict=True)):
        if old.cell_type != "code":
            continue
        found += [f"cell {number}: {o.ename}" for o in new.outputs if o.output_type == "error"]
        if "NBVAL_CHECK_OUTPUT" in old.source and texts(old) != texts(new):
            found.append(f"cell {number} says {texts(new)}, stored is {texts(old)}")
    return found


@pytest.mark.parametrize("path", find_chapters(), ids=lambda path: path.stem)
def test_a_chapter_runs_and_says_its_stored_numbers(read, path, capsys):
    stored = nbformat.read(path, as_version=4)
    ran, cost = read(path)
    assert any("NBVAL_CHECK_OUTPUT" in cell.source for cell in stored.cells)
    assert faults(stored, ran) == []
    assert 50 < cost["peak_mib"] <= MAX_PEAK_MIB
    # Seconds depend on what else the machine does, so they are shown and not asserted.
    if cost["execution_seconds"] > BUDGET_SECONDS:
        with capsys.disabled():
            print(f"\n{path.stem} took longer than its {BUDGET_SECONDS} s: {cost}")


@pytest.fixture
def template(tmp_path):
    """The skeleton of a chapter, with one stored number changed."""
    text = (ROOT / "book" / "_template.ipynb").read_text(encoding="utf-8")
    path = tmp_path / "wrong.ipynb"
    path.write_text(text.replace("image has rank 2", "image has rank 3"), encoding="utf-8")
    return path


def nbval(*paths: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env"]
    command += ["--nbval-cell-timeout=300", "-p", "no:cacheprovider", "-p", "no:randomly"]
    command += ["-W", "ignore", "-o", "addopts=", "-o", "testpaths=", "--rootdir", str(ROOT)]
    environment = {**os.environ, "CPIC_EXPLORE": "static"}
    return subprocess.run(
        [*command, *map(str, paths)], capture_output=True, text=True, cwd=ROOT, env=environment
    )


def test_nbval_and_the_comparison_above_agree(template, tmp_path):
    right = ROOT / "book" / "_template.ipynb"
    done = nbval(right)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    done = nbval(template)
    assert done.returncode == 1
    assert "image has rank 3" in done.stdout
    (result,) = run_chapters([right], out=tmp_path / "out", progress=False)
    ran = nbformat.read(result.output, as_version=4)
    ran.cells = [c for c in ran.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    assert faults(nbformat.read(right, as_version=4), ran) == []
    wrong = faults(nbformat.read(template, as_version=4), ran)
    assert len(wrong) == 1
    assert "image has rank 3" in wrong[0]


def test_outputs_are_kept_until_the_source_changes(tmp_path):
    import executed
    from jupyter_cache import get_cache

    store = get_cache(str(tmp_path / "cache"))
    source = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(1 + 1)")])
    path = tmp_path / "a.ipynb"
    nbformat.write(source, path)
    with pytest.raises(KeyError):
        executed.read(path, store)
    cell = nbformat.v4.new_code_cell("print(1 + 1)")
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="2\n")]
    injected = nbformat.v4.new_code_cell("MODE = 1", metadata={"tags": ["injected-parameters"]})
    copy = tmp_path / "copy.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[injected, cell]), copy)
    executed.keep(path, ChapterRun("a", "quick", 3.0, 70.0, str(copy)), store)
    ran, cost = executed.read(path, store)
    assert texts(ran.cells[0])[0] == "2\n"
    assert cost == {"execution_seconds": 3.0, "peak_mib": 70.0}
    source.cells[0].source = "print(1 + 2)"
    nbformat.write(source, path)
    with pytest.raises(KeyError):
        executed.read(path, store)
