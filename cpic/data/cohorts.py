"""Old name of `cpic.cohorts`."""

from cpic._renamed import moved

__getattr__ = moved(__name__, "cpic.cohorts", "cpic.data")
