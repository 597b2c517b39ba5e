"""Cohorts in their published trees: patients and scans, one-time conversion, folds."""

from cpic.cohorts._brats import read_brats
from cpic.cohorts._cache import cache_key
from cpic.cohorts._check import check_cohort
from cpic.cohorts._cohort import Cohort
from cpic.cohorts._folds import folds
from cpic.cohorts._osic import read_osic
from cpic.cohorts._osic_table import OsicTable
from cpic.cohorts._prepare import Conversion, Converted, Prepared, prepare, prepare_patient

__all__ = [
    "Cohort",
    "Conversion",
    "Converted",
    "OsicTable",
    "Prepared",
    "cache_key",
    "check_cohort",
    "folds",
    "prepare",
    "prepare_patient",
    "read_brats",
    "read_osic",
]
