"""Read volumes without holding them: arrays, memory maps, NIfTI, Zarr, formulas, and samples of each.

Importing this loads torch and NumPy only; each file format's library is imported when a file is opened.
"""

from cpic.data._array import ArrayVolume
from cpic.data._formula import FormulaVolume
from cpic.data._ledger import Ledger
from cpic.data._phantoms import gaussians
from cpic.data._samples import mni152, photograph
from cpic.data._volume import Volume

__all__ = [
    "ArrayVolume",
    "FormulaVolume",
    "Ledger",
    "Volume",
    "gaussians",
    "mni152",
    "photograph",
]
