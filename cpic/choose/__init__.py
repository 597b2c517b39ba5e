"""Choose which entries of an array to read, and rebuild it from them."""

from cpic.choose._advise import Advice, advise
from cpic.choose._choose import CHOOSERS, choose, positions
from cpic.choose._chosen import Chosen, Peak
from cpic.choose._points import Points

__all__ = ["CHOOSERS", "Advice", "Chosen", "Peak", "Points", "advise", "choose", "positions"]
