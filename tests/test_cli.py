"""The console command, in this process and as installed."""

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
    arguments = ["book", "run", "3", "4", "--mode", "full", "--out", "o"]
    assert cli.main([*arguments, "-p", "SEED", "2", "-p", "DATA", "a/b"]) == 0
    chapters, options = calls[0]
    assert chapters == ["3", "4"]
    assert options == {
        "out": "o", "mode": "full", "parameters": {"SEED": 2, "DATA": "a/b"}, "cell_timeout": 300,
    }  # fmt: skip
    assert "chapter" in capsys.readouterr().out


def test_a_failed_chapter_is_a_failed_command(calls, capsys):
    assert cli.main(["book", "run", "good", "bad"]) == 1
    assert "boom" in capsys.readouterr().out


def test_unknown_chapter_is_one_line(capsys):
    assert cli.main(["book", "run", "no-such"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("cpic book run: there is no chapter 'no-such'; choose of ")
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["book", "run", "--mode", "fast"], ["book"], ["film"]])
def test_wrong_arguments_leave_with_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2


@pytest.mark.slow
def test_installed_command_is_light():
    command = Path(sys.executable).parent / "cpic"
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"cpic {cpic.__version__}\n"
    code = "import sys, cpic.cli; print([m for m in ('torch', 'jsonargparse') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
