"""Read volumes without loading them: arrays, memory maps, NIfTI, Zarr, formulas, and samples.

Importing this loads torch and NumPy only; the library of a file format is imported when
a file of it is opened.
"""

from cpic.data._array import ArrayVolume
from cpic.data._flipped import FlippedVolume
from cpic.data._formula import FormulaVolume
from cpic.data._head import brain_like
from cpic.data._ledger import Ledger
from cpic.data._nodules import Nodules, nodules
from cpic.data._open import open_volume
from cpic.data._phantoms import exact_rank, gaussians, spike
from cpic.data._samples import mni152, photograph
from cpic.data._stacked import StackedVolume
from cpic.data._together import read_cubes
from cpic.data._volume import Volume
from cpic.data.chunked._save import save_zarr
from cpic.data.chunked._zarr import ZarrVolume
from cpic.data.dicom._volume import read_series
from cpic.data.nifti._volume import NiftiVolume

__all__ = [
    "ArrayVolume",
    "FlippedVolume",
    "FormulaVolume",
    "Ledger",
    "NiftiVolume",
    "Nodules",
    "StackedVolume",
    "Volume",
    "ZarrVolume",
    "brain_like",
    "exact_rank",
    "gaussians",
    "mni152",
    "nodules",
    "open_volume",
    "photograph",
    "read_cubes",
    "read_series",
    "save_zarr",
    "spike",
]
