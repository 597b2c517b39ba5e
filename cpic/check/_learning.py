"""Learning: data, C-PIC, cohorts, costs, scale."""

from cpic.check._verdict import Check

CHECKS: dict[str, Check] = {}
