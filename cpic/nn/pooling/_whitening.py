"""Whitened channels: in a batch norm, and on the way to another covariance."""

from typing import Any

import torch
from torch import Tensor, nn

from cpic.linalg import inverse_sqrtm, sqrtm
from cpic.nn._checks import check_positive
from cpic.nn.pooling._covariance import CovariancePool
from cpic.nn.pooling._maps import gram, positions_of


class DecorrelatedBatchNorm(nn.Module):
    r"""Batch norm with the inverse square root of the covariance of the channels (ZCA whitening).

    y = (C + eps 1)^(-1/2) (x - mean), over the batch and the positions; in evaluation mode with
    running averages of mean and whitening matrix {cite}`huang2018decorrelated`. Forward and
    backward pass may use the approximant of {cite}`song2022fast`.

    Args:
        n_channels: Channels c of the maps.
        groups: Parts of the channels that are whitened each by itself.
        eps: Added to the diagonal of the covariance.
        momentum: Weight of a batch in the running averages.
        affine: Whether each channel has a learned scale and shift.
        method: Method of `cpic.linalg.inverse_sqrtm`.
        **options: Its further options.

    Raises:
        ValueError: If the channels are not a multiple of the groups, a number is out of range, or
            when called in training mode with fewer than two vectors.

    Example:
        >>> norm = DecorrelatedBatchNorm(3)
        >>> norm(torch.rand(4, 3, 5, 5)).shape
        torch.Size([4, 3, 5, 5])
    """

    running_mean: Tensor
    running_matrix: Tensor

    def __init__(
        self,
        n_channels: int,
        *,
        groups: int = 1,
        eps: float = 1e-2,
        momentum: float = 0.1,
        affine: bool = True,
        method: str = "eigh",
        **options: Any,
    ):
        super().__init__()
        check_positive("DecorrelatedBatchNorm", n_channels=n_channels, groups=groups)
        if n_channels % groups or not eps > 0 or not 0 < momentum <= 1:
            raise ValueError(
                "DecorrelatedBatchNorm needs channels in equal groups, `eps > 0` and momentum in "
                f"(0, 1], got {n_channels} channels, groups={groups}, {eps=}, {momentum=}."
            )
        inverse_sqrtm(torch.eye(2), method=method, **options)  # a wrong option is an error now
        self.n_channels, self.groups, self.eps, self.momentum = n_channels, groups, eps, momentum
        self.method, self.options = method, options
        width = n_channels // groups
        self.register_buffer("running_mean", torch.zeros(groups, width, 1))
        self.register_buffer("running_matrix", torch.eye(width).repeat(groups, 1, 1))
        self.weight = nn.Parameter(torch.ones(n_channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(n_channels)) if affine else None

    def forward(self, maps: Tensor) -> Tensor:
        """Whitened maps of the shape `(b, c, *positions)` of the maps."""
        vectors, _ = positions_of("DecorrelatedBatchNorm", maps, None, check=False)
        if maps.shape[1] != self.n_channels:
            raise ValueError(
                f"DecorrelatedBatchNorm needs {self.n_channels} channels, got {maps.shape[1]}."
            )
        b, _, m = vectors.shape
        parts = vectors.transpose(0, 1).reshape(self.groups, -1, b * m)
        if self.training:
            mean, matrix = self._statistics(parts)
        else:
            mean, matrix = self.running_mean.to(parts), self.running_matrix.to(parts)
        found = (matrix @ (parts - mean)).reshape(-1, b, m).transpose(0, 1)
        if self.weight is not None and self.bias is not None:
            found = found * self.weight[:, None].to(found) + self.bias[:, None].to(found)
        return found.reshape(maps.shape).to(maps.dtype)

    def _statistics(self, parts: Tensor) -> tuple[Tensor, Tensor]:
        if parts.shape[-1] < 2:
            raise ValueError(
                "DecorrelatedBatchNorm needs at least 2 vectors in training mode, got "
                f"{parts.shape[-1]}; raise the batch size, or call `eval()`."
            )
        wide = parts.double()
        mean = wide.mean(-1, keepdim=True)
        centered = wide - mean
        identity = torch.eye(wide.shape[1], dtype=wide.dtype, device=wide.device)
        covariance = gram(centered) / wide.shape[-1] + self.eps * identity
        matrix = inverse_sqrtm(covariance, method=self.method, check=False, **self.options)
        with torch.no_grad():
            for running, new in ((self.running_mean, mean), (self.running_matrix, matrix)):
                running.lerp_(new.to(running), self.momentum)
        return mean.to(parts), matrix.to(parts)

    def extra_repr(self) -> str:
        """The options."""
        return f"{self.n_channels}, groups={self.groups}, eps={self.eps}, method={self.method!r}"


def transfer_statistics(
    content: Tensor, style: Tensor, *, shrinkage: float = 0.0, method: str = "eigh"
) -> Tensor:
    r"""Content maps with the means and covariances of style maps, the core of style transfer.

    Whitening and coloring, y = S^(1/2) C^(-1/2) (x - mean of x) + mean of the style, with the
    covariances C and S over the positions {cite}`li2017universal`. If C has full rank, the
    covariance of the result is S; channels without variance stay without. Differentiable in both.

    Args:
        content: Maps `(b, c, *positions)`.
        style: Maps `(b, c, *positions)`, or one for all, `(1, c, *positions)`; their positions may
            be others.
        shrinkage: Of C, as in `CovariancePool`: bounds how much small eigenvalues are amplified.
        method: Of both roots: "eigh", or "newton_schulz" or "pade" of `cpic.linalg.inverse_sqrtm`.

    Returns:
        Maps of the shape and dtype of the content.

    Raises:
        ValueError: If the channels or batches do not fit, values are not finite, or an option is
            unknown.
        TypeError: If the maps are not floating-point.

    Example:
        >>> content, style = torch.rand(2, 3, 8, 8), 5 * torch.rand(1, 3, 4, 4)
        >>> found = transfer_statistics(content, style)
        >>> bool(torch.allclose(found.mean((2, 3)), style.mean((2, 3)), atol=1e-5))
        True
    """
    who = "transfer_statistics"
    vectors, _ = positions_of(who, content, None)
    others, _ = positions_of(who, style, None)
    if others.shape[1] != vectors.shape[1] or len(others) not in (1, len(vectors)):
        raise ValueError(
            f"{who} needs style maps with {vectors.shape[1]} channels, one or {len(vectors)} of "
            f"them, got shape {tuple(style.shape)}."
        )
    whiten = inverse_sqrtm(CovariancePool(shrinkage=shrinkage)(vectors), method=method)
    color = sqrtm(CovariancePool()(others), method=method)
    mean, wide = vectors.double().mean(-1, keepdim=True), vectors.double()
    found = color @ (whiten @ (wide - mean)) + others.double().mean(-1, keepdim=True)
    return found.to(content.dtype).reshape(content.shape)
