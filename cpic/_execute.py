"""Execute one notebook by papermill, and keep the partial result if a cell fails."""

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
    """Parameters that are already Python source.

    Papermill's own translation turns tuples, and the keys of mappings, into text.
    """

    @classmethod
    def translate(cls, val: Any) -> str:
        """Return the text unchanged."""
        return str(val)


papermill_translators.register("cpic literals", _Literals)


def execute(
    path: Path, output: Path, literals: Mapping[str, str], *, timeout: int, progress: bool
) -> str:
    """Execute a notebook in its folder, write the executed copy, and return the error.

    Args:
        path: The notebook.
        output: The executed copy, written or replaced at the end.
        literals: Parameters by name, as Python source.
        timeout: Time limit of a cell in seconds.
        progress: Show a progress bar.

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
            # A dead kernel and a cell timeout raise exceptions that are not papermill's.
            return _first_line(caught)
        finally:
            if draft.exists():
                os.replace(draft, output)
            else:
                output.unlink(missing_ok=True)
    return ""


def _plain(path: Path) -> str:
    """Escape braces, which papermill would substitute."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _first_line(error: BaseException) -> str:
    name, value = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", error)
    cell = getattr(error, "cell_index", None)
    place = "" if cell is None else f"cell {cell}: "
    lines = [line.strip() for line in str(value).splitlines() if line.strip()]
    return f"{place}{name}: {lines[0] if lines else ''}"
