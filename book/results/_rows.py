"""The command line that scripts of this folder share: rows that are asked for, or missing."""

import argparse
import logging
from collections.abc import Callable, Iterable, Sequence

import torch


def asked_rows(doc: str | None, kind: str, names: Iterable[str]) -> list[str]:
    """Beginnings of names from the command line; the script then works on one thread and logs."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"beginnings of {kind} out of {', '.join(names)}")
    asked = parser.parse_args().names
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    return asked


def rows_to_make(
    asked: Sequence[str], names: Iterable[str], missing: Callable[[str], bool]
) -> list[str]:
    """Names that begin as is asked; if nothing is asked, those that are missing."""
    if asked:
        return [name for name in names if any(name.startswith(a) for a in asked)]
    return [name for name in names if missing(name)]
