"""A second device that computes: what a machine without a GPU can check of one.

Inside `Card()`, a tensor on `meta` holds numbers, which the CPU works with out of sight. All else
is as with a GPU: a result lies where its operands do, operands on two devices are an error (but for
single numbers and for indices on the CPU), and so is a generator of the CPU that draws for the
device. Numbers come back by `Tensor.to`, `cpu`, `item` and `tolist`, not by `numpy`. All this holds
in the thread that entered.
"""

from contextlib import ExitStack

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")
_CPU = torch.device("cpu")
_COPIES = {"aten::_to_copy", "aten::copy_"}  # between devices
# Indices on the CPU are moved by the operation, the tensors that they come with are not.
_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class Card(ExitStack):
    """Tensors created on `meta`, or moved there, hold numbers inside a `with` block.

    Example:
        >>> with Card():
        ...     x = torch.ones(2, device="meta", requires_grad=True)
        ...     (x * 3).sum().backward()
        ...     x.grad.tolist()
        [3.0, 3.0]
    """

    def __enter__(self) -> "Card":
        super().__enter__()
        self.enter_context(_Operations())
        self.enter_context(_Literals())
        return self


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """Numbers of Python, which torch forgets on `meta` before any operation is dispatched."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.unravel_index and args[0].device == DEVICE:
            return tuple(part.to(DEVICE) for part in func(args[0].cpu(), *args[1:], **kwargs))
        if func is Tensor.new_tensor:
            like, *args = args
            kwargs = {"device": like.device, "dtype": like.dtype, **kwargs}
            func = torch.tensor
        where = kwargs.get("device")
        if func not in (torch.tensor, torch.as_tensor) or where is None:
            return func(*args, **kwargs)
        return func(*args, **{**kwargs, "device": _CPU}).to(where)


class _OnCard(Tensor):
    """A tensor on the device; `inner` holds its numbers."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def tolist(self):
        """The numbers; torch reads none of a subclass."""
        return self.inner.tolist()

    def __reduce_ex__(self, protocol):
        # A file holds the numbers, and is read onto the CPU.
        return self.inner.__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        return memo.setdefault(id(self), self.detach().clone())


def _run(func, args, kwargs):
    given = [*_tensors(args), *_tensors(kwargs.values())]
    owned = {id(one.inner): one for one in given if isinstance(one, _OnCard)}
    place = kwargs.get("device")
    if not owned and place is None:
        return func(*args, **kwargs)
    _check(func, args, given)
    here = bool(owned) if place is None else torch.device(place) == DEVICE
    if here and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: expected a generator on {DEVICE}, got one on the CPU")
    if place is not None:
        kwargs = {**kwargs, "device": _CPU}
    inner = {name: _each(_inner, value) for name, value in kwargs.items()}
    found = func(*(_each(_inner, value) for value in args), **inner)
    if not here:
        return found
    # What was changed in place comes back as itself.
    return _each(lambda part: owned[id(part)] if id(part) in owned else _OnCard(part), found)


def _check(func, args, given):
    """Raise where a GPU would: operands on two devices."""
    name = func._schema.name
    if torch.Tag.inplace_view in func.tags:
        raise NotImplementedError(f"{func}: shapes do not change in place on this device")
    if name in _COPIES:
        return
    if name in _INDEXING and isinstance(args[0], _OnCard):
        given = [*_tensors((args[0], *args[2:]))]
    others = [one for one in given if not isinstance(one, _OnCard)]
    if len(others) < len(given) and torch.Tag.pointwise in func.tags:
        others = [one for one in others if one.ndim]
    if others and len(others) < len(given):
        raise RuntimeError(
            f"{func}: expected all tensors to be on the same device, got {DEVICE} and the CPU "
            f"with shape {tuple(others[0].shape)}"
        )


def _inner(tensor):
    return tensor.inner if isinstance(tensor, _OnCard) else tensor


def _each(function, value):
    """The value with a function applied to its tensors."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, list | tuple):
        return type(value)(_each(function, part) for part in value)
    return value


def _tensors(values):
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
