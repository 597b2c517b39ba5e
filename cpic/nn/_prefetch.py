"""Read the next positions while the previous ones are encoded."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from torch import Tensor


class Prefetch:
    """The results of `read` for each of `parts`; a thread reads the next one in the background.

    The direction of the calls is followed, forwards or backwards (as for gradients). The thread
    affects only the time. At most two results are in memory: the returned one and the next.

    Args:
        read: Maps a part to its values.
        parts: Sorted keys, distinguished by the first one.
    """

    def __init__(self, read: Callable[[np.ndarray], Tensor], parts: Sequence[np.ndarray]) -> None:
        self._read, self._parts = read, parts
        self._place = {int(part[0]): k for k, part in enumerate(parts)}
        self._last = -1
        self._next: tuple[int, Future[Tensor]] | None = None
        self._thread = ThreadPoolExecutor(1)

    def __call__(self, part: np.ndarray) -> Tensor:
        """The values of `part`."""
        k = self._place[int(part[0])]
        waiting, self._next = self._next, None
        # A change of direction discards one read: once, between the two passes.
        future = (
            waiting[1] if waiting and waiting[0] == k else self._thread.submit(self._read, part)
        )
        following = k + 1 if k > self._last else k - 1
        self._last = k
        values = future.result()
        if 0 <= following < len(self._parts):
            self._next = (following, self._thread.submit(self._read, self._parts[following]))
        return values
