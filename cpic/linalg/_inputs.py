"""What the spectral functions accept; and their one error for each thing they do not."""

import torch
from torch import Tensor


def rounding_level(matrix: Tensor) -> float:
    """Largest relative error that passes as rounding: `100 n eps` for matrices of size n."""
    return 100 * max(1, matrix.shape[-1]) * torch.finfo(matrix.dtype).eps


def check_numbers(who: str, values: Tensor) -> None:
    """Refuse dtypes without enough digits, and NaN or infinity."""
    if values.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"{who} needs float32 or float64, got {values.dtype}; convert with `.double()`, "
            "half precision cannot resolve gaps between eigenvalues."
        )
    if not torch.isfinite(values).all():
        raise ValueError(
            f"{who} needs finite numbers, got NaN or infinity; replace them with "
            "`torch.nan_to_num` first."
        )


def symmetrized(who: str, matrix: Tensor) -> Tensor:
    """`(matrix + matrix.mT) / 2`, after a check that this changes no more than rounding."""
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(
            f"{who} needs square matrices (*b, n, n), got shape {tuple(matrix.shape)}; "
            "for others use `svd`."
        )
    check_numbers(who, matrix)
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
