"""Gradients: through a choice, spectra, features."""

from cpic.check._verdict import Check

CHECKS: dict[str, Check] = {}
