"""Check a reader's answer to a code exercise: right, or a hint.

A check tests what the answer must satisfy, so it accepts every right answer, and shows none.
"""

from typing import Any

from cpic.check import _foundations, _gradients, _learning, _systems
from cpic.check._verdict import Verdict

__all__ = ["Verdict", "answer"]

_CHECKS = _foundations.CHECKS | _gradients.CHECKS | _learning.CHECKS | _systems.CHECKS


def answer(exercise: str, given: Any, *, about: Any = None) -> Verdict:
    """Check an answer to an exercise.

    Args:
        exercise: Label of the exercise, as the chapter gives it.
        given: The answer.
        about: What the exercise is about, such as an image; the chapter says what to pass.

    Returns:
        Whether it is right, and a hint if not. In a notebook it shows as one line.

    Raises:
        ValueError: If no exercise with a check has this label.

    Example:
        >>> answer("ex-low-rank-storage", 100, about=(512, 512))
        Not yet: at this rank the factors still take fewer numbers than the pixels.
    """
    if exercise not in _CHECKS:
        raise ValueError(
            f"answer knows the exercises {', '.join(sorted(_CHECKS))}, got {exercise!r}; the other "
            "exercises have folded solutions only."
        )
    hint = _CHECKS[exercise](given, about)
    return Verdict(not hint, hint)
