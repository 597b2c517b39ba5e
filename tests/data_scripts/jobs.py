"""Functions that the workers of the tests call; light, since each worker imports them."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cpic._errors import CacheError, VolumeError


def square(value: float) -> tuple[float, int, str | None]:
    # Slow enough that no worker does all of it.
    time.sleep(0.1)
    return value**2, os.getpid(), os.environ.get("OMP_NUM_THREADS")


def fail_on_odd(value: int) -> int:
    if value % 2:
        raise VolumeError(f"{value} is odd;\nchoose another.")
    return 1 // value


def full(value: int, folder: str) -> int:
    if value == 1:
        raise CacheError("the cache is full")
    time.sleep(0.05)
    (Path(folder) / str(value)).touch()
    return value


def die(name: str, folder: str, times: int) -> str:
    """Kill the worker process, but only so often."""
    tries = Path(folder) / name
    n = len(tries.read_text()) if tries.exists() else 0
    tries.write_text("x" * (n + 1))
    if n < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return name


def killed_once(job: Callable, folder: str, victim: bool, *arguments, **options):
    """A job that once kills its process after a moment of work."""
    if victim and not (Path(folder) / "died").exists():
        (Path(folder) / "died").touch()
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return job(*arguments, **options)
