"""Read a table of text cells strictly: what is odd is refused, not guessed."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cpic._errors import CohortError

_MOST_BYTES = 2**24


class Row(NamedTuple):
    """A row: the line of the file it ends on, its cells by column, and what is wrong with it."""

    line: int
    cells: dict[str, str]
    fault: str = ""


def read_table(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a comma-separated file, cells without outer spaces; empty lines are left out.

    A byte-order mark, Windows line ends, other columns, another order of columns and other case in
    their names are fine.

    Args:
        path: the file.
        columns: names that the header must have, each once.

    Returns:
        Rows in the order of the file, cells under the names of `columns`; a row with too few or
        too many cells has a fault, and its cells may be wrong.

    Raises:
        CohortError: if it is no such table.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise CohortError(
                f"{path} has {path.stat().st_size:,} bytes, too many for this table; download it "
                "again."
            )
        text = path.read_bytes().decode("utf-8-sig")
        # Strict: a stray quote must not swallow the rows up to the next one.
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, [cell.strip(" \t") for cell in line]) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(
            f"{path} cannot be read as a table ({error}): it must be comma-separated UTF-8, "
            "download it again."
        ) from error
    for number, cells in lines:
        if any(set('\r\n\0"') & set(cell) for cell in cells):
            raise CohortError(
                f"{path} has a quote, line end or NUL inside a cell of line {number}: repair the "
                "line, or download the table again."
            )
    lines = [(number, cells) for number, cells in lines if any(cells)]
    header = [cell.casefold() for cell in lines[0][1]] if lines else []
    lacking = [name for name in columns if header.count(name.casefold()) != 1]
    if lacking:
        got = ", ".join(lines[0][1])[:200] if lines else "an empty file"
        raise CohortError(
            f"{path} needs each of the columns {', '.join(columns)} once, got {got}; "
            f"{', '.join(lacking)} must be put right."
        )
    places = {name: header.index(name.casefold()) for name in columns}
    rows = []
    for number, cells in lines[1:]:
        fault = "" if len(cells) == len(header) else f"it has {len(cells)} cells, not {len(header)}"
        padded = [*cells, *[""] * len(header)]
        rows.append(Row(number, {name: padded[at] for name, at in places.items()}, fault))
    return rows
