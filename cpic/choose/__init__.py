"""Choose which entries of an array to read, and rebuild it from them."""

from cpic.choose._choose import positions
from cpic.choose._points import Points

__all__ = ["Points", "positions"]
