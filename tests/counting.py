"""Count what a GPU would have to do, and hold: operations, waits for a number, bytes."""

import weakref

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operations whose result, or its size, is needed on the host: a GPU is waited for at each.
_READS = {
    "aten::_local_scalar_dense",
    "aten::_unique2",
    "aten::bincount",
    "aten::equal",
    "aten::masked_select",
    "aten::nonzero",
    "aten::unique_consecutive",
    "aten::unique_dim",
}
# Transfers that nothing is dispatched for where the tensor is on the host already.
_TRANSFERS = {"cpu", "tolist"}


class Dispatched:
    """Numbers of operations and of reads on the host inside a `with` block.

    Attributes:
        operations: Operations dispatched, forward and backward.
        reads: Those that wait for the device, and transfers by `Tensor.cpu` and `Tensor.tolist`.
        names: How often each operation was dispatched.

    Example:
        >>> with Dispatched() as counted:
        ...     found = bool((torch.ones(3) > 0).all())
        >>> counted.operations, counted.reads
        (4, 1)
    """

    def __init__(self):
        self.operations = self.reads = 0
        self.names: dict[str, int] = {}
        self._modes = (_Operations(self), _Transfers(self))

    def __enter__(self) -> "Dispatched":
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


class _Operations(TorchDispatchMode):
    def __init__(self, counted: Dispatched):
        super().__init__()
        self.counted = counted

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if name.startswith("profiler::"):  # marks for a profiler, no operation
            return func(*args, **(kwargs or {}))
        self.counted.operations += 1
        self.counted.names[name] = self.counted.names.get(name, 0) + 1
        self.counted.reads += name in _READS or _is_masked(name, args)
        return func(*args, **(kwargs or {}))


class _Transfers(TorchFunctionMode):
    def __init__(self, counted: Dispatched):
        super().__init__()
        self.counted = counted

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.counted.reads += getattr(func, "__name__", "") in _TRANSFERS
        return func(*args, **(kwargs or {}))


def _is_masked(name: str, args: tuple) -> bool:
    """Whether this is an index with a mask, whose result has a size that only data know."""
    if name not in ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"):
        return False
    masks = (torch.bool, torch.uint8)
    return any(isinstance(index, Tensor) and index.dtype in masks for index in args[1])


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that operations in a `with` block have made and that are alive.

    Attributes:
        peak: The most at one time.

    Example:
        >>> with LiveBytes() as alive:
        ...     for _ in range(3):
        ...         found = torch.ones(100, dtype=torch.float64) + 1
        >>> alive.peak  # the result of the turn before, and of both operations
        2400
    """

    def __init__(self):
        super().__init__()
        self.peak = self._now = 0
        self._held: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        before = {one.untyped_storage()._cdata for one in tree_leaves((args, kwargs))
                  if isinstance(one, Tensor)}  # fmt: skip
        for one in tree_leaves(found):
            if isinstance(one, Tensor) and one.untyped_storage()._cdata not in before:
                self._add(one.untyped_storage())
        return found

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._held:
            self._held.add(storage._cdata)
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())

    def _remove(self, key: int, n_bytes: int) -> None:
        self._held.discard(key)
        self._now -= n_bytes
