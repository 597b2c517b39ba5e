"""One notebook through papermill: whole, or what there is of it where a cell failed."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import papermill
from jupyter_client.kernelspec import NoSuchKernel
from papermill.exceptions import PapermillException
from papermill.translators import PythonTranslator, papermill_translators


class _Literals(PythonTranslator):
    """Parameters that are Python text already.

    The translation of papermill makes text of tuples, and of the keys of mappings.
    """

    @classmethod
    def translate(cls, val: Any) -> str:
        """The text itself."""
        return str(val)


papermill_translators.register("cpic literals", _Literals)


def execute(
    path: Path, output: Path, literals: Mapping[str, str], *, timeout: int, progress: bool
) -> str:
    """Run a notebook in its folder, put the executed copy in its place, and say what went wrong.

    Args:
        path: The notebook.
        output: The copy, which appears, or replaces the one before, when all is over.
        literals: Parameters by name, as Python text.
        timeout: Seconds that one cell may take.
        progress: Show a bar.

    Returns:
        The error in one line; empty if there was none.
    """
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".running-") as place:
        draft = Path(place) / output.name
        try:
            papermill.execute_notebook(
                _plain(path),
                _plain(draft),
                parameters=dict(literals),
                kernel_name="python3",
                language="cpic literals",
                cwd=str(path.resolve().parent),
                progress_bar=progress,
                execution_timeout=timeout,
            )
        except (PapermillException, TimeoutError, RuntimeError, NoSuchKernel) as caught:
            # A dead kernel and a cell that takes too long are none of papermill's exceptions.
            return _first_line(caught)
        finally:
            if draft.exists():
                os.replace(draft, output)
            else:
                output.unlink(missing_ok=True)
    return ""


def _plain(path: Path) -> str:
    """For papermill, which fills in what is in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _first_line(error: BaseException) -> str:
    name, value = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", error)
    cell = getattr(error, "cell_index", None)
    place = "" if cell is None else f"cell {cell}: "
    lines = [line.strip() for line in str(value).splitlines() if line.strip()]
    return f"{place}{name}: {lines[0] if lines else ''}"
