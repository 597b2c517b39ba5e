r"""Bounded gradients for code that calls `torch.linalg` itself."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from cpic.linalg._eigh import eigh
from cpic.linalg._gaps import gap_function
from cpic.linalg._svd import svd


class safe_gradients(TorchFunctionMode):
    r"""Within this context, `torch.linalg.eigh` and `torch.linalg.svd` have bounded gradients.

    Libraries that call them need no change. Values and their order are those of torch. Only real
    float32 and float64 matrices are concerned, and of `svd` only `full_matrices=False`; other
    calls pass through.

    Which method to take, from the measurements of the chapters on spectra and on covariance pooling
    (relative error of the gradient of a square root of 4 rows with eigenvalues 1, 1 - gap, 0.4 and
    0.1, float64, against 60 digits, the median of nine):

    | method | at gap 1e-1 | 1e-4 | 1e-12 | take it when |
    |---|---|---|---|---|
    | `"original"` | 1e-15 | 1e-13 | 1e-5 | spectra are separated, or only eigenvalues are used |
    | `"trunc"` | 1e-15 | 1e-13 | 0.1 | the default: one bound, 1e10 / s, whatever the scale |
    | `"pade"` | 1e-15 | 1e-13 | 0.06 | float64, and the bound may be 1e12 / s |
    | `"taylor"` | 3e-6 | 0.1 | 0.1 | large steps must be damped: at most 101 / hi |
    | `"power"` | 0.02 | 0.1 | 0.1 | the same, stronger: at most 20 / hi |
    | `"topn"` | 1e-15 | 1e-13 | 1e-5 | the matrix is of low rank, and known to be |

    In a tie the eigenvectors have no derivative, and all methods are wrong in the part between
    them, by choice of their bound. If the loss is a *function of the matrix* (a root, a power, the
    loss of a whitening), take `sqrtm`, `powerm` or `inverse_sqrtm` instead: their gradient
    "lyapunov" or "exact" has no gap in it, and is exact in ties.

    Args:
        method: The method of `inverse_gap`.
        **options: Options of that method.

    Raises:
        ValueError: If the method is unknown or an option out of range; within the context also if a
            matrix is not finite, or not symmetric.
        TypeError: If the method has no such option.

    Example:
        >>> matrix = torch.eye(2, requires_grad=True)  # a tie: torch alone gives NaN
        >>> with safe_gradients():
        ...     torch.linalg.eigh(matrix).eigenvectors.sum().backward()
        >>> bool(matrix.grad.isfinite().all())
        True
    """

    def __init__(self, method: str = "trunc", **options: Any):
        super().__init__()
        gap_function("safe_gradients", method, options)
        self.options: dict[str, Any] = {"gradient": method, **options}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Replace the two functions; called by torch."""
        kwargs = dict(kwargs or {})
        if func not in (torch.linalg.eigh, torch.linalg.svd) or "out" in kwargs:
            return func(*args, **kwargs)
        names = ("input", "UPLO") if func is torch.linalg.eigh else ("input", "full_matrices")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        matrix = given["input"]
        if matrix.dtype not in (torch.float32, torch.float64):
            return func(*args, **kwargs)
        if func is torch.linalg.eigh:
            half = matrix.triu(1) if given.get("UPLO", "L") == "U" else matrix.tril(-1)
            whole = half + half.mT + torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1))
            values, vectors = eigh(whole, **self.options)
            return torch.return_types.linalg_eigh((values.flip(-1), vectors.flip(-1)))  # pyright: ignore
        if given.get("full_matrices", True):
            return func(*args, **kwargs)
        return torch.return_types.linalg_svd(svd(matrix, **self.options))  # pyright: ignore
