"""Running chapters: tiny notebooks through a real kernel."""

import json
import math
import os
from pathlib import Path

import nbformat
import numpy as np
import pytest

from cpic import _notebooks
from cpic.run import (
    ChapterRun,
    find_chapters,
    provenance,
    read_parameters,
    run_chapters,
    summary_table,
)

pytestmark = [
    pytest.mark.book,
    # pyzmq and jupyter_client leave sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

PARAMETERS = 'MODE = "quick"\nSEED = 0\nDEVICE = "cpu"\nDATA = ""\nwords: str = "x"'


def notebook(path, *cells, parameters=PARAMETERS):
    sources = [parameters, *cells]
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
    bad = notebook(tmp_path / "bad.ipynb", "print('before')", "1 / 0", "print('never printed')")
    slow = notebook(tmp_path / "slow.ipynb", "import time; time.sleep(600)")
    dead = notebook(tmp_path / "dead.ipynb", "import os; os._exit(3)")
    good = notebook(tmp_path / "good.ipynb", "print('good')")
    out = tmp_path / "out"
    results = run_chapters([bad, slow, dead, good], out=out, cell_timeout=12, progress=False)
    assert [bool(r.error) for r in results] == [True, True, True, False]
    assert "ZeroDivisionError: division by zero" in results[0].error
    assert "imeout" in results[1].error
    assert "ied" in results[2].error or "ead" in results[2].error
    assert printed(results[0].output).startswith("before")
    assert "never printed" not in printed(results[0].output)
    summary = json.loads((out / "summary.json").read_text())
    assert [ChapterRun(**row) for row in summary] == results
    assert not [*out.glob("*.part")]


@pytest.mark.parametrize("jobs", [1, 2])
def test_peak_memory_is_that_of_the_kernel(tmp_path, jobs):
    # Memory is looked at now and then, while the kernel lives.
    taken = "import time; x = bytes(b'x') * 300_000_000; del x; time.sleep(2)"
    large = notebook(tmp_path / "a.ipynb", taken)
    small = notebook(tmp_path / "b.ipynb", "import time; time.sleep(2)")
    results = run_chapters([large, small], out=tmp_path / "out", jobs=jobs, progress=False)
    assert [result.chapter for result in results] == ["a", "b"]
    assert 300 < results[0].peak_mib < 600
    assert 20 < results[1].peak_mib < 250


def test_chapters_run_side_by_side(tmp_path):
    # Each waits for the other: one after the other, neither would end.
    wait = """
import pathlib, time
pathlib.Path("{mine}").touch()
while not pathlib.Path("{other}").exists():
    time.sleep(0.05)
print("met")
"""
    a = notebook(tmp_path / "a.ipynb", wait.format(mine="a_is_here", other="b_is_here"))
    b = notebook(tmp_path / "b.ipynb", wait.format(mine="b_is_here", other="a_is_here"))
    results = run_chapters([a, b], out=tmp_path / "out", jobs=2, progress=False)
    assert [(r.chapter, r.error) for r in results] == [("a", ""), ("b", "")]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [row["chapter"] for row in summary] == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameters": {"SEDE": 1}}, "has no parameter SEDE; it knows MODE, SEED, DEVICE, DATA"),
        ({"mode": "fast"}, "needs mode quick or full, got 'fast'"),
        ({"parameters": {"MODE": "fast"}}, "needs mode quick or full, got 'fast'"),
        ({"out": ""}, "got an empty out"),
        ({"cell_timeout": 0}, "needs cell_timeout of at least 1, got 0"),
        ({"jobs": 0}, "needs jobs of at least 1, got 0"),
    ],
)
def test_bad_options_run_nothing(tmp_path, options, message):
    path = notebook(tmp_path / "a.ipynb", "open('ran', 'w')")
    with pytest.raises(ValueError, match=message):
        run_chapters([path], **{"out": tmp_path / "out", **options})
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
    with pytest.raises(FileNotFoundError, match="choose from 01_low_rank, 02_trains"):
        stems("9")
    with pytest.raises(FileNotFoundError, match="needs its notebooks"):
        find_chapters(book=tmp_path / "nowhere")


def test_table_and_provenance_name_what_matters():
    failed = ChapterRun("02", "full", 1.0, 2.0, "x.ipynb", "cell 3: ValueError: no")
    assert "cell 3: ValueError: no" in summary_table([failed])
    text = provenance(mode="quick", seed=7)
    assert text.startswith("mode quick, seed 7\ncpic ")
    assert "MiB" in text


def value(tmp_path, default, **parameters):
    """What a parameter of this default is in the kernel."""
    source = "open('value', 'w').write(repr(X))"
    path = notebook(tmp_path / "a.ipynb", source, parameters=f"MODE = 'quick'\nX = {default}")
    (result,) = run_chapters([path], out=tmp_path / "out", parameters=parameters, progress=False)
    assert result.error == ""
    return (tmp_path / "value").read_text()


VALUES = [
    (8, 8), (8,), (), [[1, (2, None)], []], None, True, False, -1e-3, -7, 10**30, 1e300, "007",
    "1.10", "None", "a\n\"b\" 'c' \\ {x} é", {"a": (1, 2), 3: {"b": None}}, float("inf"),
    float("-inf"), [float("nan")],
]  # fmt: skip


def test_parameters_reach_the_kernel_as_what_they_are(tmp_path):
    assert value(tmp_path, "0", X=VALUES) == repr(VALUES)


@pytest.mark.parametrize("given", VALUES, ids=repr)
def test_the_text_of_a_value_gives_it_back(given):
    assert repr(eval(_notebooks.literal(given))) == repr(given)


def test_numbers_of_numpy_and_paths_are_plain(tmp_path):
    given = (np.float32(0.5), np.int64(3), tmp_path)
    assert _notebooks.literal(given) == repr((0.5, 3, str(tmp_path)))


@pytest.mark.parametrize(
    "given", [{1, 2}, 1j, b"x", object(), [np.zeros(2)]], ids=lambda value: type(value).__name__
)
def test_what_a_notebook_cannot_take_is_refused(tmp_path, given):
    path = notebook(tmp_path / "a.ipynb")
    with pytest.raises(ValueError, match="the parameter SEED needs numbers, text, None, or lists"):
        run_chapters([path], out=tmp_path / "out", parameters={"SEED": given})


@pytest.mark.parametrize(
    ("text", "default", "wanted"),
    [
        ("(8, 8)", (4, 4), (8, 8)),
        ("8, 8", (4, 4), (8, 8)),
        ("[1, [2]]", 0, [1, [2]]),
        ("-1e-3", 0, -1e-3),
        ("-.5", 0, -0.5),
        ("inf", 0.0, math.inf),
        ("-inf", 0.0, -math.inf),
        ("None", 0, None),
        ("null", 0, None),
        ("true", False, True),
        ("007", 0, "007"),
        ("1,000", 0, "1,000"),
        ("0.5", 0, 0.5),
        ("0", 0, 0),
        ("7", "", "7"),
        ("1.10", "", "1.10"),
        ("true", "", "true"),
        ("None", "", "None"),
        ("(8, 8)", "", "(8, 8)"),
        ("'7'", "", "7"),
        ("'7'", 0, "7"),
        ("a b", 0, "a b"),
        ("", 0, ""),
        ("[" * 1000, 0, "[" * 1000),
    ],
)
def test_words_of_the_command_line(tmp_path, text, default, wanted):
    path = notebook(tmp_path / "a.ipynb", parameters=f"MODE = 'quick'\nX = {default!r}")
    assert repr(read_parameters([path], {"X": text})["X"]) == repr(wanted)


def test_not_a_number_is_one():
    assert math.isnan(_notebooks.value_of("nan"))


def linked(make):
    """Put a notebook in `mine`, and a way to it in `out`."""

    def place(folder):
        path = notebook(folder / "mine" / "a.ipynb", "print(SEED)")
        make(folder, Path(path))
        return path, folder / "out"

    return place


def other(folder, path):
    (folder / "out").mkdir()
    (folder / "out" / "a.ipynb").write_text(path.read_text())


PLACES = {
    "its folder": linked(lambda f, p: (f / "out").symlink_to(p.parent)),
    "a link to it": linked(lambda f, p: ((f / "out").mkdir(), (f / "out/a.ipynb").symlink_to(p))),
    "a hard link": linked(lambda f, p: ((f / "out").mkdir(), os.link(p, f / "out/a.ipynb"))),
    "another notebook": linked(other),
    "no notebook": linked(
        lambda f, p: ((f / "out").mkdir(), (f / "out/a.ipynb").write_text("notes"))
    ),
    "a folder of its name": linked(lambda f, p: (f / "out/a.ipynb").mkdir(parents=True)),
    "another summary": linked(
        lambda f, p: ((f / "out").mkdir(), (f / "out/summary.json").write_text('{"folds": []}'))
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_nothing_that_is_no_output_is_replaced(tmp_path, name):
    (tmp_path / "mine").mkdir()
    path, out = PLACES[name](tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match=r"would be lost; choose another folder"):
        run_chapters([path], out=out)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_the_folder_of_the_notebook_in_other_words(tmp_path, monkeypatch):
    path = notebook(tmp_path / "a.ipynb")
    monkeypatch.chdir(tmp_path)
    for given, out in (("a.ipynb", "."), (path, "x/.."), ("./a.ipynb", tmp_path)):
        with pytest.raises(ValueError, match="would be lost"):
            run_chapters([given], out=out)


def test_an_output_that_is_run_again_is_a_source(tmp_path):
    path = notebook(tmp_path / "a.ipynb")
    (first,) = run_chapters([path], out=tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="would be lost"):
        run_chapters([first.output], out=tmp_path / "out")


def test_outputs_of_one_name_are_refused(tmp_path):
    (tmp_path / "b").mkdir()
    first, second = notebook(tmp_path / "a.ipynb"), notebook(tmp_path / "b" / "A.ipynb")
    for pair in ((first, second), (first, first)):
        with pytest.raises(ValueError, match="would have the same name"):
            run_chapters(pair, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_earlier_output_is_replaced_at_the_end(tmp_path):
    out = tmp_path / "out {SEED}"
    path = notebook(tmp_path / "a.ipynb", "print(SEED)")
    for seed in (1, 2):
        (result,) = run_chapters([path], out=out, parameters={"SEED": seed}, progress=False)
        assert printed(result.output) == f"{seed}\n"
    assert {p.name for p in out.iterdir()} == {"a.ipynb", "summary.json"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as a notebook"),
        ("[]", "cannot be read as a notebook"),
        ('{"cells": 3}', "cannot be read as a notebook"),
        ('{"cells": [{"metadata": null}]}', "cannot be read as a notebook"),
        ("[" * 100_000, "cannot be read as a notebook"),
        ("%magic", "needs plain Python in the cell tagged `parameters`"),
    ],
    ids=["empty", "list", "number", "null", "deep", "magic"],
)
def test_what_is_no_notebook_is_named(tmp_path, text, message):
    path = tmp_path / "a.ipynb"
    path.write_text(text)
    if text.startswith("%"):
        notebook(path, parameters=text)
    with pytest.raises(ValueError, match=rf"a\.ipynb {message}"):
        run_chapters([path], out=tmp_path / "out")


def test_an_output_folder_that_cannot_be_made(tmp_path):
    path = notebook(tmp_path / "a.ipynb")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/out cannot be written \(Not a directory\)"):
        run_chapters([path], out=tmp_path / "file" / "out")
