"""Feature maps as vectors at positions, and what is checked of them."""

import math
from typing import Any

import torch
from torch import Tensor

from cpic.linalg._inputs import check_finite


def positions_of(who: str, maps: Tensor, mask: Tensor | None, *, check: bool = True):
    """Vectors `(b, c, m)` and the share of each position, `(b, 1, m)` or None without a mask.

    Positions outside the mask become zero whatever they hold. Half precision becomes float32.
    """
    if maps.ndim < 3 or not maps.shape[1] or not math.prod(maps.shape[2:]):
        raise ValueError(
            f"{who} needs feature maps (b, c, *positions) with at least one channel and position, "
            f"got shape {tuple(maps.shape)}; add an axis of positions with `unsqueeze(-1)`."
        )
    if not maps.is_floating_point():
        raise TypeError(f"{who} needs floating-point feature maps, got {maps.dtype}; cast them.")
    vectors = maps.flatten(2)
    if vectors.dtype in (torch.float16, torch.bfloat16):
        vectors = vectors.float()
    share = None
    if mask is not None:
        expected = (maps.shape[0], *maps.shape[2:])
        if tuple(mask.shape) != expected or mask.dtype != torch.bool:
            raise ValueError(
                f"{who} needs a mask of booleans of shape {expected}, got {mask.dtype} of shape "
                f"{tuple(mask.shape)}; true marks positions that count."
            )
        inside = mask.flatten(1).unsqueeze(1)
        vectors = torch.where(inside, vectors, 0.0)
        share = inside.to(vectors) / inside.sum(-1, keepdim=True).clamp(min=1)
    if check:
        advice = "the layers before it overflow: lower the learning rate, or normalize the input"
        check_finite(who, vectors, what="feature maps", advice=advice)
    return vectors, share


def mean_of(vectors: Tensor, share: Tensor | None) -> Tensor:
    """Means over the positions, `(b, c, 1)`."""
    if share is None:
        return vectors.mean(-1, keepdim=True)
    return (vectors * share).sum(-1, keepdim=True)


def products(vectors: Tensor, share: Tensor | None) -> Tensor:
    """Means over the positions of the products of two channels, `(b, c, c)`."""
    if share is None:
        return gram(vectors) / vectors.shape[-1]
    return gram(vectors * share.sqrt())


def gram(vectors: Tensor) -> Tensor:
    """The products X X^T, `(b, c, c)`, of vectors X `(b, c, m)`; differentiable twice and more.

    Their gradient (G + G^T) X is one product; autograd would make one for each factor, one of them
    of transposed layout.
    """
    return _Gram.apply(vectors)


class _Gram(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(vectors: Tensor) -> Tensor:
        return vectors @ vectors.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (vectors,) = ctx.saved_tensors
        return (gradient + gradient.mT) @ vectors

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:  # type: ignore[override]
        (vectors,) = ctx.saved_tensors
        one = tangent @ vectors.mT
        return one + one.mT
