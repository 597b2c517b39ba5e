"""Learn from huge volumes by reading a small, well-chosen part of them.

`cpic.linalg` selects rows of matrices, `cpic.tt` builds tensor trains from selected entries,
`cpic.data` reads volumes without loading them whole, `cpic.show` draws. Import the sub-packages:
`from cpic import linalg, tt`.
"""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cpic import data, linalg, show, tt

__version__ = version("cpic")
__all__ = ["__version__", "data", "linalg", "show", "tt"]


def __getattr__(name: str):
    # Sub-packages load on first use, so that `import cpic` costs nothing.
    if name in __all__:
        return importlib.import_module(f"cpic.{name}")
    raise AttributeError(f"module 'cpic' has no attribute {name!r}")
