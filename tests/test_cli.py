"""The console command, in this process and as installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import cpic
from cpic import cli, run


@pytest.fixture
def calls(monkeypatch):
    """Record calls instead of running chapters; each chapter named `bad` fails."""
    seen = []

    def fake(chapters, *, report, **options):
        seen.append((list(chapters), options))
        results = [
            run.ChapterRun(c, options["mode"], 1.0, 2.0, "x.ipynb", "boom" if c == "bad" else "")
            for c in chapters
        ]
        for result in results:
            report(result)
        return results

    monkeypatch.setattr(run, "run_chapters", fake)
    return seen


def test_arguments_reach_the_run(calls, capsys):
    arguments = ["book", "run", "3", "4", "--mode", "full", "--out", "o", "--jobs", "2"]
    assert cli.main([*arguments, "-p", "SEED", "-2", "--parameter", "DATA", "--007"]) == 0
    chapters, options = calls[0]
    assert chapters == ["3", "4"]
    assert options == {
        "out": "o", "mode": "full", "cell_timeout": 300, "jobs": 2,
        "parameters": {"SEED": -2, "DATA": "--007"},
    }  # fmt: skip
    assert "chapter" in capsys.readouterr().out


def test_a_failed_chapter_is_a_failed_command(calls, capsys):
    assert cli.main(["book", "run", "good", "bad"]) == 1
    assert "boom" in capsys.readouterr().out


def test_unknown_chapter_is_one_line(capsys):
    assert cli.main(["book", "run", "no-such"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("cpic book run: there is no chapter 'no-such'; choose from ")
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["book", "run", "--mode", "fast"],
            "cpic book run: argument --mode: invalid choice: 'fast'",
        ),
        (["book", "run", "--mod", "full"], "cpic book run: unrecognized arguments: --mod"),
        (["book", "run", "--cell_timeout", "-1"], "cell_timeout"),
        (["book", "run", "-p", "SEED"], "cpic book run: -p needs a name and a value, got SEED"),
        (["book", "run", "-p", "A", "-1", "-p", "A", "2"], "the parameter A is given twice"),
        (["book", "run", "3", "--out", ""], "cpic book run: running the book needs a folder"),
        (["book"], "cpic book: expected"),
        (["film"], "cpic film: argument command: invalid choice: 'film'"),
        (["data", "check"], "cpic data check: the following arguments are required"),
        ([], "cpic: expected"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_arguments_are_one_line_and_code_2(arguments, message, capsys):
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["brats", "--print_config"], 0, ""),
        (["data", "check", "."], 2, "cpic data check: it needs jsonargparse; pip install"),
        (["film"], 2, "cpic film: it needs jsonargparse; pip install"),
    ],
    ids=["brats", "data", "film"],
)
def test_only_commands_that_use_the_parser_need_it(words, code, message, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    assert cli.main(words) == code
    assert capsys.readouterr().err.startswith(message)


def command(*words, code=None, **variables):
    """The command in a process of its own; `code` runs before it."""
    text = f"import sys\n{code or ''}\nfrom cpic.cli import main\nsys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **variables},
    )


def many(folder, name="BraTS20_Training"):
    """A tree of BraTS of which nothing but the table is there: many lines to print."""
    tree = folder / "MICCAI_BraTS2020_TrainingData"
    tree.mkdir()
    rows = "".join(f"{name}_{k:04d},60,300,GTR\n" for k in range(3000))
    head = "Brats20ID,Age,Survival_days,Extent_of_Resection\n"
    (tree / "survival_info.csv").write_text(head + rows, encoding="utf-8")
    return tree


@pytest.mark.slow
@pytest.mark.parametrize("words", [["data", "check"], ["book", "run", "--help"]], ids=" ".join)
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_reader_that_leaves_is_no_fault(tmp_path, words, unbuffered):
    more = [many(tmp_path)] if words[0] == "data" else []
    job = command(*words, *more, PYTHONUNBUFFERED=unbuffered)
    job.stdout.close()
    assert job.stderr.read() == b""
    job.stderr.close()
    # The parser ignores that nobody reads its help, unless a buffer is flushed after it.
    assert job.wait(300) == (0 if "--help" in words and unbuffered else 141)


@pytest.mark.slow
def test_a_terminal_without_the_signs_of_a_name(tmp_path):
    job = command("data", "check", many(tmp_path, "Müller→"), PYTHONIOENCODING="ascii")
    out, err = job.communicate(timeout=300)
    assert err == b""
    assert b"M\\xfcller\\u2192_0001" in out
    assert job.returncode == 1


@pytest.mark.slow
def test_a_deleted_current_folder_is_one_line(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    line = f"rmdir '{gone}'; exec '{sys.executable}' -m cpic.cli data check x"
    env = os.environ | {"PYTHONPATH": str(Path(cpic.__file__).parents[1]), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(["sh", "-c", line], cwd=gone, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "cpic data check: the current folder was deleted; change to one that exists."
    ]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_the_output_is_one_line(tmp_path):
    words = [sys.executable, "-m", "cpic.cli", "data", "check", str(many(tmp_path))]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "cpic data check: [Errno 28] No space left on device\n"


# An interrupt at the moment that a library is looked for; some of them drop what is raised then.
BELL = """
import os, signal
class Bell:
    def find_spec(self, name, *rest):
        if name == "{name}":
            sys.meta_path.remove(self)
            {how}
sys.meta_path.insert(0, Bell())
"""
HOW = {
    "raised": "os.kill(os.getpid(), signal.SIGINT)",
    "dropped": "\n            ".join(
        ("try: os.kill(os.getpid(), signal.SIGINT)", "except BaseException: pass")
    ),
    "another error": "\n            ".join(
        (
            "try: os.kill(os.getpid(), signal.SIGINT)",
            "except BaseException: raise ImportError('broken')",
        )
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("yaml", ["brats", "--print_config"]),
        ("lightning", ["brats", "--root", "nowhere"]),
        ("jsonargparse", ["book", "run", "no-such"]),
    ],
    ids=str,
)
def test_an_interrupt_while_libraries_load_is_one_line(how, name, words):
    job = command(*words, code=BELL.format(name=name, how=HOW[how]))
    _, err = job.communicate(timeout=300)
    assert err.decode() == f"cpic {words[0]}{' run' if words[0] == 'book' else ''}: stopped\n"
    assert job.returncode == 130


@pytest.mark.slow
def test_installed_command_is_light():
    command = Path(sys.executable).parent / "cpic"
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"cpic {cpic.__version__}\n"
    code = "import sys, cpic.cli; print([m for m in ('torch', 'jsonargparse') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
