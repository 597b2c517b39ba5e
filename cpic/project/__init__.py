"""Feature vectors of many trains."""

from cpic.project._basis import Basis
from cpic.project._gather import gather
from cpic.project._project import Projection, project
from cpic.project._update import align, update

__all__ = ["Basis", "Projection", "align", "gather", "project", "update"]
