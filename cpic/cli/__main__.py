"""`python -m cpic.cli`, for launchers such as torchrun."""

import sys

from cpic.cli import main

if __name__ == "__main__":
    sys.exit(main())
