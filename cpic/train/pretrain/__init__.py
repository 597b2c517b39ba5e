"""Learn an encoder of patches without labels."""

import cpic.train.loop  # noqa: F401 (what Lightning needs to be imported)
from cpic.train.pretrain._byol import BYOL, pretrain
from cpic.train.pretrain._lars import LARS
from cpic.train.pretrain._views import random_views

__all__ = ["BYOL", "LARS", "pretrain", "random_views"]
