"""Covariances of the channels of feature maps, and their powers as vectors."""

import torch
from torch import Tensor, nn

from cpic.nn.pooling._maps import mean_of, positions_of, products


class CovariancePool(nn.Module):
    r"""Covariances of the channels over the positions, (1/m) X_c X_c^T with centered X.

    The published form X J X^T with J = (1/m) (1 - (1/m) 1 1^T) is the same; it forms the m x m
    matrix J. The rank is at most min(c, m - 1): at a single position the covariance is zero.

    Args:
        centered: False gives mean products, X X^T / m, as in bilinear pooling.
        shrinkage: Share s of the mean variance in place of the covariance: (1 - s) C + s (tr C / c)
            times the identity, in [0, 1].
        precision: Dtype of sums and results.
        check: False skips the check for NaN and infinity, which reads one number back.

    Raises:
        ValueError: If `shrinkage` is out of range; when called, if the maps have no position, are
            not finite, or the mask has another shape.

    Example:
        >>> maps = torch.tensor([[[1.0, 2, 0, 1], [0, 1, 3, 1], [2, 0, 1, 1]]])
        >>> CovariancePool()(maps)[0, 0]
        tensor([ 0.5000, -0.5000, -0.2500], dtype=torch.float64)
    """

    def __init__(
        self,
        *,
        centered: bool = True,
        shrinkage: float = 0.0,
        precision: torch.dtype = torch.float64,
        check: bool = True,
    ):
        super().__init__()
        if not 0 <= shrinkage <= 1:
            raise ValueError(f"CovariancePool needs `shrinkage` in [0, 1], got {shrinkage}.")
        self.centered, self.shrinkage = centered, shrinkage
        self.precision, self.check = precision, check

    def forward(self, maps: Tensor, mask: Tensor | None = None) -> Tensor:
        """Covariances `(b, c, c)` of maps `(b, c, *positions)`; `mask` `(b, *positions)`.

        Of a video, `(b, c, time, height, width)`, times are positions: temporal pooling.
        Positions where the mask is false count in neither the mean nor the covariance nor m. If it
        is false everywhere, the covariance is zero.
        """
        vectors, share = positions_of("CovariancePool", maps, mask, check=self.check)
        vectors = vectors.to(self.precision)
        share = None if share is None else share.to(self.precision)
        if self.centered:
            vectors = vectors - mean_of(vectors, share)
            if mask is not None:
                vectors = torch.where(mask.flatten(1).unsqueeze(1), vectors, 0.0)
        found = products(vectors, share)
        if self.shrinkage:
            level = found.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
            identity = torch.eye(found.shape[-1], dtype=found.dtype, device=found.device)
            found = (1 - self.shrinkage) * found + self.shrinkage * level * identity
        return found

    def extra_repr(self) -> str:
        """The options."""
        return f"centered={self.centered}, shrinkage={self.shrinkage}"


def triangle(matrix: Tensor, *, weighted: bool = False) -> Tensor:
    """The upper triangle `(*b, n (n + 1) / 2)` of symmetric matrices `(*b, n, n)`, by rows.

    Args:
        matrix: Symmetric matrices.
        weighted: Multiply the entries beside the diagonal by the square root of two: distances of
            the vectors then are Frobenius distances of the matrices. As published they are not.

    Raises:
        ValueError: If the matrices are not square.

    Example:
        >>> triangle(torch.tensor([[1.0, 2.0], [2.0, 5.0]]))
        tensor([1., 2., 5.])
    """
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(
            f"triangle needs square matrices (*b, n, n), got shape {tuple(matrix.shape)}."
        )
    n = matrix.shape[-1]
    rows, columns = torch.triu_indices(n, n, device=matrix.device)
    found = matrix[..., rows, columns]
    return torch.where(rows == columns, 1.0, 2**0.5) * found if weighted else found
