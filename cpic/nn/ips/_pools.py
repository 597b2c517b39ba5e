r"""From embeddings of patches to tokens: attention of learned queries, which also ranks patches.

Shapes: `B` bags, `k` patches, `D` width, `H` heads, `T` tokens.
References: {cite}`bergner2023iterative`, {cite}`ilse2018attention`.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cpic.nn._checks import check_positive
from cpic.nn.ips._encoding import cell_encoding, positional_encoding
from cpic.nn.ips._select import weights
from cpic.nn.pooling import SecondOrder


class CrossAttention(nn.Module):
    r"""One transformer layer whose queries are learned tokens {cite}`bergner2023iterative`.

    With $z = \mathrm{LN}(\mathrm{drop}(W_o\,\mathrm{heads}) + \mathrm{tokens})$ the tokens are
    $\mathrm{LN}(\mathrm{drop}(W_2\,\mathrm{relu}(W_1 z)) + z)$. The queries do not depend on the
    patches, so that the cost is linear in their number. The score of a patch is the mean of its
    weights {eq}`eq-patches-score`.

    Args:
        width: D, width of embeddings and tokens.
        n_tokens: Number of tokens, such as one for each task.
        heads: Number of heads.
        key_width: Width of the queries and keys of a head; `width // heads` by default.
        value_width: Width of the values of a head; `width // heads` by default.
        inner: Width of the hidden layer; four times the width by default.
        dropout: Of both residual branches.
        attention_dropout: Of the weights of the patches.
        grid: Sizes of the grid of patches, of one, two or three axes: embeddings then get the
            encoding of their cell, that of their index in row-major order. It is computed for the
            patches at hand: a table would grow with the grid. None: patches have no positions.

    Raises:
        ValueError: If a size is below 1, or the width does not fit the grid.

    Example:
        >>> pool = CrossAttention(16, n_tokens=4, grid=(10, 10)).eval()
        >>> indices = torch.tensor([[3, 99]])
        >>> pool(torch.randn(1, 2, 16), indices=indices).shape
        torch.Size([1, 4, 16])
    """

    def __init__(
        self,
        width: int,
        *,
        n_tokens: int = 1,
        heads: int = 8,
        key_width: int | None = None,
        value_width: int | None = None,
        inner: int | None = None,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        grid: Sequence[int] | None = None,
    ):
        super().__init__()
        sizes = {
            "key_width": width // heads if key_width is None else key_width,
            "value_width": width // heads if value_width is None else value_width,
            "inner": 4 * width if inner is None else inner,
        }
        check_positive("CrossAttention", width=width, n_tokens=n_tokens, heads=heads, **sizes)
        self.width, self.n_tokens, self.heads = width, n_tokens, heads
        self.key_width, values = sizes["key_width"], heads * sizes["value_width"]
        bound = math.sqrt(1 / self.key_width)
        self.tokens = nn.Parameter(torch.empty(n_tokens, width).uniform_(-bound, bound))
        self.query = nn.Linear(width, heads * self.key_width, bias=False)
        self.key = nn.Linear(width, heads * self.key_width, bias=False)
        self.value = nn.Linear(width, values, bias=False)
        self.out = nn.Linear(values, width, bias=False)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.first, self.second = nn.Linear(width, sizes["inner"]), nn.Linear(sizes["inner"], width)
        self.last_norm = nn.LayerNorm(width, eps=1e-6)
        self.dropout, self.attention_dropout = nn.Dropout(dropout), nn.Dropout(attention_dropout)
        self.grid = None if grid is None else tuple(grid)
        if self.grid is not None:
            check_positive("CrossAttention", **{f"grid[{k}]": n for k, n in enumerate(self.grid)})
            positional_encoding(self.tokens.new_zeros(len(self.grid)), width=width)  # or an error

    def logits(self, embeddings: Tensor, indices: Tensor | None = None) -> Tensor:
        """Logits `(B, H, T, k)` of embeddings `(B, k, D)` of the patches of these indices."""
        return self._logits(self._placed(embeddings, indices))

    def forward(
        self, embeddings: Tensor, mask: Tensor | None = None, indices: Tensor | None = None
    ) -> Tensor:
        """Tokens `(B, T, D)` of embeddings `(B, k, D)`.

        Args:
            embeddings: `(B, k, D)`.
            mask: bool `(B, k)`, False where there is no patch.
            indices: int64 `(B, k)`, for their positions; on the CPU, no number is read back.

        Raises:
            ValueError: If the embeddings have another width, or positions are needed.
        """
        placed = self._placed(embeddings, indices)
        if mask is None:
            mask = torch.ones(placed.shape[:2], dtype=torch.bool, device=placed.device)
        attention = self.attention_dropout(weights(self._logits(placed), mask))
        values = self.value(placed).unflatten(-1, (self.heads, -1))
        seen = torch.einsum("bhtk,bkhv->bthv", attention, values).flatten(-2)
        z = self.norm(self.dropout(self.out(seen)) + self.tokens)
        return self.last_norm(self.dropout(self.second(self.first(z).relu())) + z)

    def encoding(self, indices: Tensor) -> Tensor:
        """Positions `(..., D)` of the patches of these indices `(...)`, in the dtype of the tokens.

        Raises:
            ValueError: If there is no grid, or an index lies outside.
        """
        if self.grid is None:
            raise ValueError("CrossAttention has positions only with a grid; pass `grid`.")
        if indices.numel() and int(indices.max()) >= math.prod(self.grid):
            raise ValueError(
                f"CrossAttention has a grid of {math.prod(self.grid)} patches, got index "
                f"{int(indices.max())}; give it the grid of the images."
            )
        at = indices.clamp_min(0).to(self.tokens.device)
        return cell_encoding(at, grid=self.grid, width=self.width).to(self.tokens.dtype)

    def _logits(self, placed: Tensor) -> Tensor:
        queries = self.query(self.tokens).unflatten(-1, (self.heads, -1))
        keys = self.key(placed).unflatten(-1, (self.heads, -1))
        return torch.einsum("thj,bkhj->bhtk", queries, keys) / math.sqrt(self.key_width)

    def _placed(self, embeddings: Tensor, indices: Tensor | None) -> Tensor:
        """Embeddings with the encodings of their positions, if there are any."""
        if embeddings.ndim != 3 or embeddings.shape[-1] != self.width:
            raise ValueError(
                f"CrossAttention needs embeddings (B, k, {self.width}), got "
                f"{tuple(embeddings.shape)}; make it as wide as the encoder."
            )
        if self.grid is None:
            return embeddings
        if indices is None:
            raise ValueError(
                "CrossAttention with a grid needs the indices of the patches, got none; pass "
                "them, or leave out `grid`."
            )
        return embeddings + self.encoding(indices).to(embeddings)


class GatedAttention(nn.Module):
    r"""Attention-based pooling of all patches, ABMIL {cite}`ilse2018attention`.

    The logit of a patch is $w^\top(\tanh(Vx) \odot \sigma(Ux))$, and a token the mean of the
    embeddings with the softmax of these weights.

    Args:
        width: D, width of embeddings and tokens.
        n_tokens: Number of tokens, each with its own `w`.
        inner: Width of `Vx`; half the width by default.

    Example:
        >>> GatedAttention(16, n_tokens=2)(torch.randn(3, 50, 16)).shape
        torch.Size([3, 2, 16])
    """

    def __init__(self, width: int, *, n_tokens: int = 1, inner: int | None = None):
        super().__init__()
        inner = max(1, width // 2) if inner is None else inner
        check_positive("GatedAttention", width=width, n_tokens=n_tokens, inner=inner)
        self.width, self.n_tokens = width, n_tokens
        self.value, self.gate = nn.Linear(width, inner), nn.Linear(width, inner)
        self.weight = nn.Linear(inner, n_tokens)

    def logits(self, embeddings: Tensor, indices: Tensor | None = None) -> Tensor:
        """Logits `(B, 1, T, k)` of embeddings `(B, k, D)`."""
        inner = self.value(embeddings).tanh() * self.gate(embeddings).sigmoid()
        return self.weight(inner).transpose(1, 2)[:, None]

    def forward(
        self, embeddings: Tensor, mask: Tensor | None = None, indices: Tensor | None = None
    ) -> Tensor:
        """Tokens `(B, T, D)` of embeddings `(B, k, D)`, with a mask `(B, k)` of the patches."""
        if mask is None:
            mask = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
        return weights(self.logits(embeddings), mask)[:, 0] @ embeddings


class WithCovariance(nn.Module):
    r"""Tokens of another pool plus the square root of the covariance of the patches.

    The mean of a pool says what there is, the covariance over the patches what occurs together
    {cite}`li2017second`. The other pool ranks the patches, and is trained with its own tokens.

    Args:
        pool: The other pool.
        n_channels: c, to which embeddings are reduced for a covariance of c (c + 1) / 2 numbers.
        power: Of the covariance, as in `cpic.nn.pooling.SecondOrder`; None for the exact root.

    Example:
        >>> WithCovariance(GatedAttention(16, n_tokens=2))(torch.randn(3, 50, 16)).shape
        torch.Size([3, 2, 16])
    """

    def __init__(
        self,
        pool: CrossAttention | GatedAttention,
        *,
        n_channels: int = 16,
        power: nn.Module | None = None,
    ):
        super().__init__()
        check_positive("WithCovariance", n_channels=n_channels)
        self.pool, self.width, self.n_tokens = pool, pool.width, pool.n_tokens
        self.reduce = nn.Linear(pool.width, n_channels, bias=False)
        self.covariance = SecondOrder(n_channels, power, check=False)
        self.expand = nn.Linear(self.covariance.n_outputs, pool.width)

    def logits(self, embeddings: Tensor, indices: Tensor | None = None) -> Tensor:
        """Logits `(B, H, T, k)` of the other pool."""
        return self.pool.logits(embeddings, indices)

    def forward(
        self, embeddings: Tensor, mask: Tensor | None = None, indices: Tensor | None = None
    ) -> Tensor:
        """Tokens `(B, T, D)` of embeddings `(B, k, D)`, with a mask `(B, k)` of the patches."""
        roots = self.covariance(self.reduce(embeddings).mT, mask)
        return self.pool(embeddings, mask, indices) + self.expand(roots).unsqueeze(1)
