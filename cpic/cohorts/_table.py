"""Read a table of text cells strictly: irregularities are rejected, not guessed."""

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cpic._errors import CohortError
from cpic._trust import DoubtError, check_regular, read_regular

_MOST_BYTES = 2**24
# Valid names of patients in a table: each is the name of a folder in the tree.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Row(NamedTuple):
    """A row: the line of the file where it ends, its cells by column, and its fault."""

    line: int
    cells: dict[str, str]
    fault: str = ""


def read_table(
    path: Path,
    columns: Sequence[str],
    *,
    also: Mapping[str, Sequence[str]] | None = None,
    optional: Collection[str] = (),
) -> list[Row]:
    """The rows of a comma-separated file, with cells stripped; empty lines are skipped.

    A byte-order mark, Windows line ends, further columns, and any order and case of their names are
    accepted.

    Args:
        path: The file.
        columns: Names that the header must have exactly once.
        also: Alternative names of columns.
        optional: Columns that may be missing; their cells are then empty.

    Returns:
        Rows in the order of the file, cells under the names in `columns`; a row with too few or too
        many cells has a fault, and its cells may be wrong.

    Raises:
        CohortError: If it is not such a table.
    """
    lines = _read_lines(path)
    for number, cells in lines:
        if any(set('\r\n\0"') & set(cell) for cell in cells):
            raise CohortError(
                f"{path} has a quote, line end or NUL inside a cell of line {number}: repair the "
                "line, or download the table again."
            )
    lines = [(number, cells) for number, cells in lines if any(cells)]
    header = [cell.casefold() for cell in lines[0][1]] if lines else []
    names = {c: {n.casefold() for n in (c, *(also or {}).get(c, ()))} for c in columns}
    found = {c: [k for k, cell in enumerate(header) if cell in names[c]] for c in columns}
    lacking = [c for c, at in found.items() if len(at) > 1 or not (at or c in optional)]
    if lacking:
        got = ", ".join(lines[0][1])[:200] if lines else "an empty file"
        wanted = ", ".join(name for name in columns if name not in optional)
        commas = " with commas between the cells" if len(header) == 1 else ""
        raise CohortError(
            f"{path} needs each of the columns {wanted} once{commas}, got {got}; "
            f"{', '.join(lacking)} must be put right."
        )
    places = {column: at[0] if at else -1 for column, at in found.items()}
    rows = []
    for number, cells in lines[1:]:
        fault = "" if len(cells) == len(header) else f"it has {len(cells)} cells, not {len(header)}"
        # Missing columns refer to an additional empty cell at the end.
        padded = [*cells, *[""] * (len(header) + 1)]
        rows.append(Row(number, {name: padded[at] for name, at in places.items()}, fault))
    return rows


def _read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Stripped cells, and the line of the file where each row ends."""
    try:
        if (size := check_regular(path)) > _MOST_BYTES:
            raise CohortError(
                f"{path} has {size:,} bytes, too many for this table; download it again."
            )
        text = read_regular(path, _MOST_BYTES).decode("utf-8-sig")
        # Strict: a stray quote must not swallow the rows up to the next one.
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
        return [(reader.line_num, [cell.strip(" \t") for cell in line]) for line in reader]
    except (OSError, DoubtError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(
            f"{path} cannot be read as a table ({error}): it must be comma-separated UTF-8, "
            "download it again."
        ) from error
