"""The scripts are no package: they find each other because they lie in one folder."""

import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "data_scripts"
sys.path.insert(0, str(SCRIPTS))
