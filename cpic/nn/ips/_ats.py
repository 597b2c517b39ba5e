r"""Attention sampling: patches drawn from a map of a small view, with unbiased gradients.

Shapes: `B` images, `N` cells of the map, `M` drawn ones, `D` width of an embedding.
References: {cite}`katharopoulos2019processing`.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from cpic.linalg._inputs import check_choice
from cpic.nn._checks import check_positive
from cpic.nn.ips._bags import Bags, Patches, as_bags
from cpic.nn.ips._encoders import as_pixels
from cpic.nn.ips._model import Answer
from cpic.nn.ips._select import Selection, encode
from cpic.nn.ips._tasks import Heads, Target


class Drawn(NamedTuple):
    """Cells drawn from maps.

    Attributes:
        indices: int64 `(B, M)`, in the order in which they were drawn.
        attention: Their values, `(B, M)`, with gradient.
    """

    indices: Tensor
    attention: Tensor


class MapNet(nn.Module):
    """A small network from a view of an image to one logit for each patch of its grid.

    Convolutions of 3x3 with tanh, as published for digits {cite}`katharopoulos2019processing`; the
    logit of a patch is the largest one in its part of the view.

    Args:
        in_channels: Channels of the view.
        grid: Rows and columns of patches.
        widths: Channels of the hidden layers.

    Example:
        >>> MapNet(1, grid=(6, 5))(torch.rand(2, 1, 60, 50)).shape
        torch.Size([2, 30])
    """

    def __init__(self, in_channels: int, *, grid: Sequence[int], widths: Sequence[int] = (8, 8)):
        super().__init__()
        layers: list[nn.Module] = []
        for before, behind in zip((in_channels, *widths), widths, strict=False):
            layers += [nn.Conv2d(before, behind, 3, 1, 1), nn.Tanh()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, 1, 1))
        self.in_channels, self.grid = in_channels, tuple(grid)

    def forward(self, views: Tensor) -> Tensor:
        """Logits `(B, rows * columns)` of views `(B, in_channels, h, w)`."""
        pixels = as_pixels(views, next(self.parameters()), self.in_channels)
        return nn.functional.adaptive_max_pool2d(self.layers(pixels), self.grid).flatten(1)


def draw_patches(
    attention: Tensor,
    *,
    m: int,
    replace: bool = False,
    generator: torch.Generator | None = None,
    noise: bool = True,
) -> Drawn:
    """Draw `m` cells of each map, with or without replacement.

    Args:
        attention: Maps `(B, N)`, which sum to 1 and are above 0 where a cell may be drawn.
        m: Number of cells.
        replace: Draw each one independently; otherwise all differ, by the Gumbel trick.
        generator: Of the CPU.
        noise: False takes the largest ones.

    Raises:
        ValueError: If `m` is below 1, or without replacement above the number of cells.

    Example:
        >>> draw_patches(torch.tensor([[0.1, 0.6, 0.3]]), m=2, noise=False).indices
        tensor([[1, 2]])
    """
    check_positive("draw_patches", m=m)
    if not replace and m > attention.shape[1]:
        raise ValueError(
            f"draw_patches needs m of at most the {attention.shape[1]} cells without replacement, "
            f"got {m}; lower it, or set replace=True."
        )
    fixed = attention.detach().cpu()
    if replace and noise:
        indices = fixed.multinomial(m, replacement=True, generator=generator)
    else:
        keys = fixed.log()
        if noise:
            uniform = torch.rand(fixed.shape, generator=generator, dtype=fixed.dtype, device="cpu")
            keys = keys - (-uniform.clamp_min(torch.finfo(fixed.dtype).tiny).log()).log()
        indices = keys.sort(dim=1, descending=True, stable=True).indices[:, :m]
    indices = indices.to(attention.device)
    return Drawn(indices, attention.gather(1, indices))


def expectation(
    features: Tensor,
    attention: Tensor,
    *,
    replace: bool = False,
    published: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    r"""The mean of features with the weights of a map, estimated from drawn ones.

    Gradients are those of the expectation, estimated as well, not of the estimate. With
    replacement, $\Phi = \frac1M\sum_i f_i$ and $\partial a_i = \frac1M \langle g, f_i\rangle /
    a_i$. Without, with $p_i = 1 - \sum_{j<i} a_j$ and $e_i = \sum_{j<i} a_j f_j + p_i f_i$,
    $\Phi = \frac1M\sum_i e_i$, and $\partial a_i = \frac1M \langle g, (p_i / a_i + M - 1 - i)
    f_i\rangle$.

    Args:
        features: `(B, M, D)`, in the order in which they were drawn.
        attention: `(B, M)`, their values in the map.
        replace: How they were drawn.
        published: Without replacement, $\partial a_i = \frac1M\langle g, e_i p_i / a_i +
            \sum_{j<i} f_j - i f_i\rangle$ {cite}`katharopoulos2019processing`, which is biased
            for more than one patch.
        mask: bool `(B, M)`, False behind the last one of a map from which fewer were drawn.

    Returns:
        `(B, D)`.

    Example:
        >>> features = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]])
        >>> expectation(features, torch.tensor([[0.4, 0.3, 0.1]]))
        tensor([[0.8000, 0.5000]])
    """
    if mask is None:
        mask = torch.ones_like(attention, dtype=torch.bool)
    mask = mask[..., None]
    n_drawn = mask.sum(1, keepdim=True)
    # What was not drawn has no value, and nothing is divided by its share.
    a, features = attention.detach()[..., None].where(mask, 1), features.where(mask, 0)
    fixed = features.detach()
    if replace:
        value, slope = features, fixed / a
    else:
        rest = (1 - _earlier(a)).clamp_min(0)
        value = _earlier(a * features) + rest * features
        count = torch.arange(len(a[0]), device=features.device, dtype=features.dtype)[:, None]
        slope = (rest / a + n_drawn - 1 - count) * fixed
        if published:
            slope = value.detach() * rest / a + _earlier(fixed) - count * fixed
    # The second term is zero, and has the estimated gradient.
    parts = value + (attention[..., None] - attention.detach()[..., None]) * slope
    return (parts.where(mask, 0) / n_drawn).sum(1)


def _earlier(parts: Tensor) -> Tensor:
    """Sums over those before, along axis 1."""
    return parts.cumsum(1) - parts


class AttentionSampling(nn.Module):
    """Draw patches from a map of a small view, and classify by the mean of their features.

    The map is over the patches of the bag, in place of corners at any pixel.

    Args:
        map_net: Maps views to logits `(B, N)`, one for each patch, such as `MapNet`.
        encoder: Maps patches `(n, *)` to embeddings `(n, n_dims)`, an attribute.
        targets: The tasks.
        m: Number of patches.
        replace: Whether a patch may be drawn twice.
        published: See `expectation`.
        smooth: Share of a uniform map, so that no patch is out of reach.
        entropy: Weight of the negative entropy of the map in the loss.
        normalize: Divide embeddings by their norm, for a small variance.
        test: "sample", as published, from a fixed seed, or "top", the largest of the map.

    Raises:
        ValueError: If an option is invalid.
    """

    def __init__(
        self,
        map_net: nn.Module,
        encoder: nn.Module,
        targets: Sequence[Target],
        *,
        m: int,
        replace: bool = False,
        published: bool = False,
        smooth: float = 1e-5,
        entropy: float = 1e-4,
        normalize: bool = True,
        test: Literal["sample", "top"] = "sample",
    ):
        super().__init__()
        check_positive("AttentionSampling", m=m)
        check_choice("AttentionSampling", "test", test, ("sample", "top"), "choose one of them")
        self.map_net, self.encoder = map_net, encoder
        self.heads = Heads(targets, int(encoder.n_dims))  # type: ignore[arg-type]
        self.m, self.replace, self.smooth, self.entropy = m, replace, smooth, entropy
        self.published, self.normalize, self.test = published, normalize, test

    def attention(self, views: Tensor, bags: Bags) -> Tensor:
        """Maps `(B, N)` over the patches of bags, which sum to 1.

        Raises:
            ValueError: If there are more or fewer logits than patches.
        """
        logits = self.map_net(views)
        if logits.shape[1] != bags.width:
            raise ValueError(
                f"AttentionSampling needs one logit for each of the {bags.width} patches, got "
                f"{logits.shape[1]}; give its map the grid of the images."
            )
        there = torch.zeros(logits.shape, dtype=torch.bool, device="cpu")
        there = there.scatter(1, bags.order, bags.valid(0, bags.order.shape[1])).to(logits.device)
        soft = logits.masked_fill(~there, -torch.inf).softmax(1)
        # A patch is drawn before a place without one, also if its share is rounded to 0.
        soft = soft.clamp_min(torch.finfo(soft.dtype).tiny) * there
        return (1 - self.smooth) * soft + self.smooth * there / there.sum(1, keepdim=True)

    def forward(
        self,
        patches: Patches | Bags,
        views: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Answer:
        """Logits of B images, with the penalty of the entropy.

        Args:
            patches: As in `PatchClassifier`.
            views: `(B, c, h, w)`.
            mask: As in `PatchClassifier`.
            generator: What is drawn from in training; None is torch's own.

        Raises:
            ValueError: If there are no views, or they do not fit.
        """
        bags, views = as_bags(patches, mask), needed(self, views)
        attention = self.attention(views, bags)
        if not self.training:
            generator = torch.Generator().manual_seed(0)
        m = self.m if self.replace else min(self.m, bags.largest)
        noise = self.training or self.test == "sample"
        drawn = draw_patches(attention, m=m, replace=self.replace, generator=generator, noise=noise)
        # Cells without a patch come last.
        chosen = torch.ones(drawn.indices.shape, dtype=torch.bool, device="cpu")
        if not self.replace:
            chosen = bags.valid(0, m)
        indices = drawn.indices.cpu().masked_fill(~chosen, -1)
        features = encode(bags, indices.clamp_min(0), chosen, self.encoder)
        if self.normalize:
            features = nn.functional.normalize(features, dim=-1)
        mean = expectation(
            features,
            drawn.attention.to(features),
            replace=self.replace,
            published=self.published,
            mask=chosen.to(features.device),
        )
        penalty = self.entropy * (attention * (attention + 1e-6).log()).sum(1).mean()
        selection = Selection(indices, chosen, drawn.attention.detach(), attention.detach())
        return Answer(self.heads(mean[:, None]), selection, penalty)


def needed(owner: nn.Module, views: Tensor | None) -> Tensor:
    """The views, or an error if there are none."""
    if views is None:
        raise ValueError(
            f"{type(owner).__name__} looks at small views of the images, got none; pass `views`."
        )
    return views
