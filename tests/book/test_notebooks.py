"""All notebooks as a reader runs them, and their stored numbers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cpic.run import find_chapters, run_chapters, summary_table

ROOT = Path(__file__).resolve().parents[2]
MAX_PEAK_MIB = 4096
BUDGET_SECONDS = 60

pytestmark = [
    pytest.mark.book,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def test_all_notebooks_run_in_quick_mode(tmp_path, capsys):
    results = run_chapters(out=tmp_path, mode="quick", progress=False)
    with capsys.disabled():
        print("\n" + summary_table(results))
        for result in results:
            # Seconds depend on what else the machine does, so they are shown and not asserted.
            if result.seconds > BUDGET_SECONDS:
                print(f"{result.chapter} took longer than its {BUDGET_SECONDS} s")
    assert {r.chapter: r.error for r in results if r.error} == {}
    assert {r.chapter: r.peak_mib for r in results if r.peak_mib > MAX_PEAK_MIB} == {}
    assert all(r.peak_mib > 50 for r in results)


def nbval(*paths: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env"]
    command += ["--nbval-cell-timeout=300", "-p", "no:cacheprovider", "-p", "no:randomly"]
    command += ["-W", "ignore", "-o", "addopts=", "-o", "testpaths=", "--rootdir", str(ROOT)]
    environment = {**os.environ, "CPIC_EXPLORE": "static"}
    return subprocess.run(
        [*command, *map(str, paths)], capture_output=True, text=True, cwd=ROOT, env=environment
    )


@pytest.mark.timeout(1800)
def test_stored_numbers_are_what_the_cells_print():
    done = nbval(*find_chapters())
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_a_wrong_stored_number_is_found(tmp_path):
    template = (ROOT / "book" / "_template.ipynb").read_text(encoding="utf-8")
    path = tmp_path / "wrong.ipynb"
    path.write_text(
        template.replace("rank 2, you guessed", "rank 3, you guessed"), encoding="utf-8"
    )
    done = nbval(path)
    assert done.returncode == 1
    assert "rank 3, you guessed" in done.stdout
