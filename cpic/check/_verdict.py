"""The verdict on an answer, and what the checks of all parts share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Takes an answer and what it is about; returns a hint, empty if the answer is right.
Check = Callable[[Any, Any], str]


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and if not, where to look.

    Args:
        right: Whether it is.
        hint: What is wrong with it, empty if it is right.
    """

    right: bool
    hint: str = ""

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return "Right." if self.right else f"Not yet: {self.hint}"


def number(given: Any) -> float | None:
    """A number, or None for anything else."""
    try:
        return float(given)
    except (TypeError, ValueError, RuntimeError):
        return None
