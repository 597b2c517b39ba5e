"""Peak memory of a process and of the Jupyter kernel it started."""

import threading
from pathlib import Path
from typing import Any


class PeakMemory:
    """Peak resident memory of the kernel that runs in this context."""

    def __init__(self):
        self.peak_mib = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        me, kernel = psutil.Process(), None
        while not self._done.wait(0.02):
            try:
                kernel = kernel or _kernel_of(me)
                if kernel is not None:
                    self.peak_mib = max(self.peak_mib, peak_mib(kernel.pid))
            except psutil.Error:
                kernel = None


def _kernel_of(process: Any) -> Any:
    for child in process.children():
        if any("ipykernel" in word for word in child.cmdline()):
            return child
    return None


def peak_mib(pid: int) -> float:
    """Peak resident memory; recorded by Linux, elsewhere the current value is used."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        import psutil

        return psutil.Process(pid).memory_info().rss / 2**20 if psutil.pid_exists(pid) else 0.0
