"""The tasks, one file each, and their common code."""

from cpic.train.tasks._baseline import baseline
from cpic.train.tasks._brats import brats
from cpic.train.tasks._gan import gan
from cpic.train.tasks._gcp import gcp
from cpic.train.tasks._imgcls import imgcls
from cpic.train.tasks._ips import ips
from cpic.train.tasks._osic import osic

# By the names of their commands.
TASKS = {one.__name__: one for one in (brats, osic, baseline, gan, imgcls, ips, gcp)}
