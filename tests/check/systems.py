"""Answers to the exercises of part Systems: exercise, answer, what it is about, hint."""

from typing import Any

CASES: list[tuple[str, Any, Any, str]] = []
