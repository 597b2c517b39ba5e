"""What is learned: one file a task, and what several tasks share."""

from cpic.train.tasks._baseline import baseline
from cpic.train.tasks._brats import brats
from cpic.train.tasks._osic import osic

# By their names as commands.
TASKS = {one.__name__: one for one in (brats, osic, baseline)}
