"""Old name of `cpic.cohorts.synthetic`."""

from cpic._renamed import moved

__getattr__ = moved(__name__, "cpic.cohorts.synthetic")
