"""The clock of the benchmark."""

import time
from collections.abc import Callable


def processor_clock() -> Callable[[], float]:
    """A clock of processor seconds that starts now."""
    start = time.process_time()
    return lambda: time.process_time() - start
