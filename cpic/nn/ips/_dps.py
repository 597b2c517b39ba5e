r"""Differentiable patch selection: the mean of the top-k of perturbed scores.

Shapes: `B` images, `N` cells of the map, `k` slots, `S` draws of the noise.
References: {cite}`cordonnier2021differentiable`, {cite}`berthet2020learning`.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cpic.nn._checks import check_positive
from cpic.nn.ips._ats import needed
from cpic.nn.ips._bags import Bags, Patches, as_bags
from cpic.nn.ips._model import Answer
from cpic.nn.ips._pools import CrossAttention
from cpic.nn.ips._select import Selection, encode
from cpic.nn.ips._tasks import Heads, Target


class _PerturbedTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, noise: Tensor, k: int, sigma: float) -> Tensor:
        places = (scores[:, None] + sigma * noise).topk(k, -1).indices.sort(-1).values
        ctx.save_for_backward(places, noise)
        ctx.sigma = sigma
        found = scores.new_zeros(len(scores), k, scores.shape[1])
        share = torch.full_like(places, 1 / noise.shape[1], dtype=scores.dtype)
        return found.scatter_add(2, places.transpose(1, 2), share.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        places, noise = ctx.saved_tensors
        # The product of the gradient with the one-hot vectors of a draw, which are never made.
        seen = grads[0].gather(2, places.transpose(1, 2)).sum(1)
        slope = torch.einsum("bs,bsn->bn", seen, noise) / (noise.shape[1] * ctx.sigma)
        return slope, None, None, None


def perturbed_topk(
    scores: Tensor,
    *,
    k: int,
    sigma: float = 0.05,
    n_draws: int = 500,
    published: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""How often each cell is in each of k slots, when scores are perturbed by Gaussian noise.

    The slots hold the k largest cells by position. The gradient is that of the expectation,
    $\partial s = \frac{1}{S\sigma}\sum_z \langle G, Y_z\rangle z$ {cite}`berthet2020learning`.

    Args:
        scores: `(B, N)`.
        k: Number of slots.
        sigma: Standard deviation of the noise, above 0.
        n_draws: Number of draws S.
        published: Multiply the gradient by k, as the published code does.
        generator: Of the CPU.

    Returns:
        `(B, k, N)`; each slot sums to 1. Differentiable in the scores, once.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> perturbed_topk(torch.tensor([[0.0, 9.0, 5.0]]), k=2, sigma=1e-3, n_draws=2)
        tensor([[[0., 1., 0.],
                 [0., 0., 1.]]])
    """
    check_positive("perturbed_topk", k=k, n_draws=n_draws)
    if k > scores.shape[1] or not sigma > 0:
        raise ValueError(
            f"perturbed_topk needs k of at most the {scores.shape[1]} cells and sigma above 0, got "
            f"{k} and {sigma}; without noise, use `topk`."
        )
    shape = (len(scores), n_draws, scores.shape[1])
    noise = torch.randn(shape, generator=generator, dtype=scores.dtype, device="cpu")
    found = _PerturbedTopK.apply(scores, noise.to(scores.device), k, sigma)
    assert isinstance(found, Tensor)
    return k * found - (k - 1) * found.detach() if published else found


class DifferentiableSelection(nn.Module):
    """The best patches of a map of a small view, which learns through perturbed scores.

    A slot is the mean of patches, weighted by how often they are in it; in evaluation it is one
    patch {cite}`cordonnier2021differentiable`.

    Args:
        map_net: Maps views to scores `(B, N)`, one for each patch, such as `MapNet`.
        encoder: Maps patches `(n, *)` to embeddings `(n, D)`.
        pool: Maps embeddings to tokens; without a grid.
        targets: The tasks.
        m: Number of slots.
        sigma: Standard deviation of the noise at the beginning and the end of training, relative
            to the range of the scores.
        n_draws: Draws of the noise.
        published: See `perturbed_topk`.

    Attributes:
        sigma: The present standard deviation, see `anneal`.

    Raises:
        ValueError: If an option is invalid.
    """

    def __init__(
        self,
        map_net: nn.Module,
        encoder: nn.Module,
        pool: CrossAttention,
        targets: Sequence[Target],
        *,
        m: int,
        sigma: tuple[float, float] = (0.05, 1e-5),
        n_draws: int = 500,
        published: bool = False,
    ):
        super().__init__()
        check_positive("DifferentiableSelection", m=m, n_draws=n_draws)
        self.map_net, self.encoder, self.pool = map_net, encoder, pool
        self.heads = Heads(targets, pool.width, n_tokens=pool.n_tokens)
        self.m, self.n_draws, self.published = m, n_draws, published
        self.sigmas, self.sigma = sigma, sigma[0]

    def anneal(self, done: float) -> None:
        """Set the noise for a share of the training that is done, along half a cosine."""
        first, last = self.sigmas
        self.sigma = last + (first - last) * (1 + math.cos(math.pi * done)) / 2

    def scores(self, views: Tensor, bags: Bags) -> Tensor:
        """Scores `(B, N)` of the patches of bags, from 0 to 1.

        Raises:
            ValueError: If bags differ in size, there are more or fewer scores than patches, or
                fewer patches than slots.
        """
        raw = self.map_net(views)
        if bags.sizes.tolist() != [raw.shape[1]] * len(bags):
            raise ValueError(
                f"DifferentiableSelection needs bags of {raw.shape[1]} patches, one for each score "
                f"of its map, got {bags.sizes.tolist()}; resize the images."
            )
        if self.m > raw.shape[1]:
            raise ValueError(
                f"DifferentiableSelection needs m of at most the {raw.shape[1]} patches, got "
                f"{self.m}; lower it."
            )
        low, high = raw.amin(1, keepdim=True), raw.amax(1, keepdim=True)
        return (raw - low) / (high - low + 1e-5)

    def forward(
        self,
        patches: Patches | Bags,
        views: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Answer:
        """Logits of B images.

        Args:
            patches: As in `PatchClassifier`.
            views: `(B, c, h, w)`.
            mask: As in `PatchClassifier`.
            generator: What the noise is drawn from; None is torch's own.

        Raises:
            ValueError: If there are no views, or they do not fit.
        """
        bags, views = as_bags(patches, mask), needed(self, views)
        scores = self.scores(views, bags)
        best = scores.detach().topk(self.m, 1)
        indices = best.indices.sort(1).values.cpu()
        chosen = torch.ones_like(indices, dtype=torch.bool)
        selection = Selection(best.indices.cpu(), chosen, best.values, scores.detach())
        if not self.training:
            embeddings = encode(bags, indices, chosen, self.encoder)
            return Answer(self.heads(self.pool(embeddings)), selection)
        shares = perturbed_topk(
            scores,
            k=self.m,
            sigma=self.sigma,
            n_draws=self.n_draws,
            published=self.published,
            generator=generator,
        )
        embeddings = self.encoder(_mixed(bags, shares).flatten(0, 1))
        return Answer(self.heads(self.pool(embeddings.unflatten(0, (-1, self.m)))), selection)


def _mixed(bags: Bags, shares: Tensor) -> Tensor:
    """Means of patches `(B, k, *)` by their shares `(B, k, N)`; only those with one are read."""
    used = shares.detach().sum(1).cpu() > 0
    count = used.sum(1)
    order = (~used).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(count.max())]
    valid = torch.arange(order.shape[1], device="cpu") < count[:, None]
    patches = bags.read(order, valid)
    scale = 1.0 if patches.is_floating_point() else torch.iinfo(patches.dtype).max
    patches = patches.to(shares) / scale
    rows = valid.nonzero()[:, 0].to(shares.device)
    columns = order[valid].to(shares.device)
    parts = shares[rows, :, columns]
    weighted = parts.view(*parts.shape, *[1] * (patches.ndim - 1)) * patches[:, None]
    whole = weighted.new_zeros(len(bags), *weighted.shape[1:])
    return whole.index_add(0, rows, weighted)
