"""Cohorts in their published trees: who has which scans, conversion once, folds."""

from cpic.data._dicom import read_series
from cpic.data.cohorts._brats import read_brats
from cpic.data.cohorts._cache import cache_key
from cpic.data.cohorts._check import check_cohort
from cpic.data.cohorts._cohort import Cohort
from cpic.data.cohorts._folds import folds
from cpic.data.cohorts._osic import read_osic
from cpic.data.cohorts._osic_table import OsicTable
from cpic.data.cohorts._prepare import Conversion, Converted, Prepared, prepare, prepare_patient
from cpic.data.cohorts._stacked import StackedVolume

__all__ = [
    "Cohort",
    "Conversion",
    "Converted",
    "OsicTable",
    "Prepared",
    "StackedVolume",
    "cache_key",
    "check_cohort",
    "folds",
    "prepare",
    "prepare_patient",
    "read_brats",
    "read_osic",
    "read_series",
]
