"""Calls that are made on every device, with the same numbers and results.

A table maps names to calls; a call gets a device and a dtype, puts its input there, and returns
what came back. The words of a name are the public names that the call stands for.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

CPU = torch.device("cpu")
DTYPES = (torch.float32, torch.float64)
Call = Callable[[torch.device, torch.dtype], Any]
# Sums in another order, a few roundings later.
_TOLERANCES = {torch.float32: (1e-3, 1e-4), torch.float64: (1e-8, 1e-10)}


def check(call: Call, device: torch.device, dtype: torch.dtype) -> None:
    """Results must lie on the device, in the dtype, and equal those of the CPU."""
    expected, found = (tensors(call(place, dtype)) for place in (CPU, device))
    assert len(found) == len(expected) > 0
    rtol, atol = _TOLERANCES[dtype]
    for one, other in zip(expected, found, strict=True):
        assert other.device == device
        assert other.dtype == one.dtype
        assert not other.is_floating_point() or other.dtype == dtype
        torch.testing.assert_close(other.detach().cpu(), one.detach(), rtol=rtol, atol=atol)


def everywhere(table: Mapping[str, Call]) -> Callable[..., None]:
    """The test that every call of a table passes `check`, in both dtypes."""

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("name", table)
    def test(name, device, dtype):
        check(table[name], device, dtype)

    return test


def missing(table: Mapping[str, Call], public: Iterable[str], besides: Iterable[str] = ()) -> set:
    """The public names that no call stands for; `besides` are of no device."""
    return set(public) - {word for name in table for word in name.split()} - set(besides)


def drawn(device: torch.device, dtype: torch.dtype, *shape: int, seed: int = 0) -> Tensor:
    """The same uniform numbers on every device."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(shape, generator=generator, dtype=torch.float64, device=CPU)
    return numbers.to(device, dtype)


def source() -> torch.Generator:
    """What draws random numbers, on the CPU whatever the device."""
    return torch.Generator().manual_seed(0)


def graded(function: Callable[..., Any], *inputs: Tensor) -> list[Tensor]:
    """Results of a function, and gradients of the sum of their squares."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    found = tensors(function(*leaves))
    loss = sum(part.square().sum() for part in found if part.requires_grad)
    return [*found, *torch.autograd.grad(loss, leaves)]


def tensors(result: Any) -> list[Tensor]:
    """All tensors in a result, in order."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, nn.Module):
        return [*result.parameters(), *result.buffers()]
    if isinstance(result, tuple | list):
        parts: Iterable[Any] = result
    elif isinstance(result, Mapping):
        parts = result.values()
    else:
        parts = vars(result).values() if type(result).__module__.startswith("cpic.") else ()
    return [tensor for part in parts for tensor in tensors(part)]
