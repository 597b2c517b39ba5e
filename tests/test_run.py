"""Running chapters: tiny notebooks through a real kernel."""

import json

import nbformat
import pytest

from cpic.run import ChapterRun, find_chapters, provenance, run_chapters, summary_table

pytestmark = [
    pytest.mark.book,
    # pyzmq and jupyter_client leave sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

PARAMETERS = 'MODE = "quick"\nSEED = 0\nDEVICE = "cpu"\nDATA = ""\nwords: str = "x"'


def notebook(path, *cells):
    sources = [PARAMETERS, *cells]
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    content.cells[0].metadata["tags"] = ["parameters"]
    content.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(content, path)
    return str(path)


def printed(path):
    cells = nbformat.read(path, as_version=4).cells
    outputs = [o for c in cells if c.cell_type == "code" for o in c.outputs]
    return "".join(o.get("text", "") for o in outputs)


def test_parameters_reach_the_kernel(tmp_path):
    said = "import os, time; print(MODE, SEED, words, os.getcwd()); time.sleep(0.5)"
    path = notebook(tmp_path / "a.ipynb", said)
    seen = []
    (result,) = run_chapters(
        [path], out=tmp_path / "out", mode="full", parameters={"SEED": 3, "words": "a b"},
        progress=False, report=seen.append,
    )  # fmt: skip
    assert printed(result.output) == f"full 3 a b {tmp_path}\n"
    assert result.error == ""
    assert seen == [result]
    assert result.seconds > 0
    assert result.peak_mib > 20
    assert printed(path) == ""


def test_failures_are_kept_and_the_rest_runs(tmp_path):
    bad = notebook(tmp_path / "bad.ipynb", "print('before')", "1 / 0", "print('after')")
    slow = notebook(tmp_path / "slow.ipynb", "import time; time.sleep(30)")
    dead = notebook(tmp_path / "dead.ipynb", "import os; os._exit(3)")
    good = notebook(tmp_path / "good.ipynb", "print('good')")
    out = tmp_path / "out"
    results = run_chapters([bad, slow, dead, good], out=out, cell_timeout=4, progress=False)
    assert [bool(r.error) for r in results] == [True, True, True, False]
    assert "ZeroDivisionError: division by zero" in results[0].error
    assert "imeout" in results[1].error
    assert "ied" in results[2].error or "ead" in results[2].error
    assert printed(results[0].output).startswith("before")
    assert "after" not in printed(results[0].output)
    summary = json.loads((out / "summary.json").read_text())
    assert [ChapterRun(**row) for row in summary] == results
    assert not [*out.glob("*.part")]


def test_peak_memory_is_that_of_the_kernel(tmp_path):
    # Memory is looked at now and then, while the kernel lives.
    taken = "import time; x = bytes(b'x') * 300_000_000; del x; time.sleep(0.5)"
    path = notebook(tmp_path / "a.ipynb", taken)
    (result,) = run_chapters([path], out=tmp_path / "out", progress=False)
    assert 300 < result.peak_mib < 600


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameters": {"SEDE": 1}}, "has no parameter SEDE; it knows MODE, SEED, DEVICE, DATA"),
        ({"mode": "fast"}, "needs mode quick or full, got 'fast'"),
    ],
)
def test_bad_options_run_nothing(tmp_path, options, message):
    path = notebook(tmp_path / "a.ipynb", "open('ran', 'w')")
    with pytest.raises(ValueError, match=message):
        run_chapters([path], out=tmp_path / "out", **options)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


def test_chapters_are_found_by_name_and_number(tmp_path):
    for name in ("01_low_rank", "02_trains", "intro", "_template"):
        notebook(tmp_path / f"{name}.ipynb")

    def stems(*names):
        return [p.stem for p in find_chapters(names, book=tmp_path)]

    assert stems() == ["01_low_rank", "02_trains", "intro"]
    assert stems("2", "01", "intro", "01_low_rank.ipynb") == [
        "02_trains", "01_low_rank", "intro", "01_low_rank",
    ]  # fmt: skip
    with pytest.raises(FileNotFoundError, match="choose of 01_low_rank, 02_trains"):
        stems("9")
    with pytest.raises(FileNotFoundError, match="needs its notebooks"):
        find_chapters(book=tmp_path / "nowhere")


def test_table_and_provenance_name_what_matters():
    failed = ChapterRun("02", "full", 1.0, 2.0, "x.ipynb", "cell 3: ValueError: no")
    assert "cell 3: ValueError: no" in summary_table([failed])
    text = provenance(mode="quick", seed=7)
    assert text.startswith("mode quick, seed 7\ncpic ")
    assert "MiB" in text
