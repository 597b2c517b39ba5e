"""Checks of arguments, with one error message for each kind."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm


def check_choice(who: str, name: str, given: object, known: Iterable[object], advice: str) -> None:
    """Raise unless the value of the argument `name` is one of `known`."""
    known = list(known)
    if given not in known:
        offered = ", ".join(map(repr, known))
        raise ValueError(f"{who} needs `{name}` out of {offered}, got {given!r}; {advice}.")


def check_least(who: str, advice: str, *, least: int = 1, **numbers: float | None) -> None:
    """Raise if a number is below `least`; None is valid."""
    for name, number in numbers.items():
        if number is not None and not number >= least:
            raise ValueError(f"{who} needs `{name} >= {least}`, got {number}; {advice}.")


def need_generator(who: str, generator: torch.Generator | None) -> torch.Generator:
    """The generator, or a `ValueError` if it is None."""
    if generator is None:
        raise ValueError(
            f"{who} needs a generator, got None; pass `generator=torch.Generator().manual_seed(0)`."
        )
    return generator


def rounding_level(matrix: Tensor) -> float:
    """Largest relative error that counts as rounding: `100 n eps` for matrices of size n."""
    return 100 * max(1, matrix.shape[-1]) * torch.finfo(matrix.dtype).eps


def check_dtype(
    who: str,
    dtype: torch.dtype,
    advice: str = "cast with `.double()`, half precision cannot resolve gaps between eigenvalues",
) -> None:
    """Raise unless the dtype has enough digits."""
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{who} needs float32 or float64, got {dtype}; {advice}.")


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no tensor contains NaN or infinity; read from the device once for all of them."""
    filled = [x for x in tensors if x.numel() and (x.is_floating_point() or x.is_complex())]
    if len(filled) == 1:  # without the overhead of the other function
        return math.isfinite(torch.linalg.vector_norm(filled[0].detach(), math.inf))
    with torch.no_grad():
        return not filled or math.isfinite(get_total_norm(filled, math.inf))


def check_finite(
    who: str,
    *tensors: Tensor,
    what: str = "numbers",
    advice: str = "replace them with `torch.nan_to_num` or mask them first",
) -> None:
    """Raise if a value is NaN or infinite."""
    if not all_finite(tensors):
        raise ValueError(f"{who} needs finite {what}, got NaN or infinity; {advice}.")


def symmetrized(who: str, matrix: Tensor) -> Tensor:
    """`(matrix + matrix.mT) / 2`, after a check that the difference is only rounding."""
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(
            f"{who} needs square matrices (*b, n, n), got shape {tuple(matrix.shape)}; "
            "for others use `svd`."
        )
    check_dtype(who, matrix.dtype)
    check_finite(who, matrix)
    if matrix.numel():
        skew = (matrix - matrix.mT).detach().abs().amax((-2, -1))
        level = rounding_level(matrix)
        allowed = level * matrix.detach().abs().amax((-2, -1))
        if (skew > allowed).any():
            raise ValueError(
                f"{who} needs symmetric matrices, to {level:.1e} of the largest entry, got a "
                f"difference of {float(skew.max()):.1e}; pass `(a + a.mT) / 2`."
            )
    return (matrix + matrix.mT) / 2
