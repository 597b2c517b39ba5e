"""Write the chapters as a reader works with them: executed, headings and code, without solutions.

`make book` writes them to _build/html/notebooks.zip. They run where the chapters are, in the folder
`book`.
"""

import re
import zipfile
from pathlib import Path

import executed
import nbformat
from nbformat import NotebookNode

from cpic.run import find_chapters

FENCE = re.compile(r"^(`{3,}|:{3,}).*?^\1[ \t]*$\n?", re.MULTILINE | re.DOTALL)
SOLUTION = re.compile(r"^(`{3,})\{solution\}.*?^\1[ \t]*$\n?", re.MULTILINE | re.DOTALL)
START = re.compile(r"^(`{3,})\{solution-start\} *(\S+).*", re.MULTILINE | re.DOTALL)
END = re.compile(r"\A.*?^(`{3,})\{solution-end\}\s*^\1[ \t]*$\n?", re.MULTILINE | re.DOTALL)


def clean(notebook: NotebookNode) -> NotebookNode:
    """Headings and code only, without outputs."""
    found = _stripped(notebook)
    for cell in found.cells:
        if cell.cell_type == "markdown":
            headings = re.findall(r"^#{1,6} .+$", FENCE.sub("", cell.source), re.MULTILINE)
            cell.source = "\n\n".join(headings)
    found.cells = [cell for cell in found.cells if cell.source]
    return found


def without_solutions(notebook: NotebookNode) -> NotebookNode:
    """The text as it is, and an empty cell in place of each solution."""
    found, cells, inside = _stripped(notebook), [], False
    for cell in found.cells:
        if cell.cell_type == "markdown":
            if inside and (end := END.search(cell.source)):
                cell.source, inside = cell.source[end.end() :], False
            cell.source = SOLUTION.sub("", cell.source)
            if start := START.search(cell.source):
                after, inside = f"# Your answer to {start[2]}\n", True
                cell.source = cell.source[: start.start()]
                empty = nbformat.v4.new_code_cell(after, id=f"{cell.id[:40]}-answer")
                cells += [cell, empty] if cell.source.strip() else [empty]
                continue
        if not inside and cell.source.strip():
            cells.append(cell)
    found.cells = cells
    return found


def _stripped(notebook: NotebookNode) -> NotebookNode:
    found = nbformat.from_dict(notebook)
    for cell in found.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return found


def write(target: Path) -> None:
    """Write the three forms of all chapters into one archive."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in find_chapters():
            source = nbformat.read(path, as_version=4)
            forms = {"executed": executed.read(path)[0], "headings_and_code": clean(source)}
            forms["exercises"] = without_solutions(source)
            for folder, form in forms.items():
                archive.writestr(f"{folder}/{path.name}", nbformat.writes(form))
