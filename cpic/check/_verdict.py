"""The verdict on an answer, and what the checks of all parts share."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

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
    except (TypeError, ValueError, ArithmeticError, RuntimeError):
        return None


def numbers(given: Any) -> list[float] | None:
    """Finite numbers one by one, or None for anything else."""
    try:
        found = [float(one) for one in given]
    except (TypeError, ValueError, ArithmeticError, RuntimeError):
        return None
    return found if all(map(math.isfinite, found)) else None


def like(given: Any, other: Tensor) -> Tensor | None:
    """A tensor of the shape of another one in double precision, or None for anything else."""
    if not isinstance(given, Tensor) or given.shape != other.shape or given.is_complex():
        return None
    return given.detach().cpu().double()


def near(value: float, other: float, tol: float = 0.01) -> bool:
    """Whether a value agrees with another one up to a relative tolerance; NaN does not."""
    return abs(value - other) <= tol * abs(other)
