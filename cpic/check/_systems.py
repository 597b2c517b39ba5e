"""Three more systems: spectral layers, patches, covariances, the equal budget."""

from cpic.check._verdict import Check

CHECKS: dict[str, Check] = {}
