"""One feature vector for every one of many trains."""

from cpic.project._basis import Basis
from cpic.project._project import Projection, project

__all__ = ["Basis", "Projection", "project"]
