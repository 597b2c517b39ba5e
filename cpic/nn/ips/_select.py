r"""Iterative patch selection: the best patches of a bag of any size, in chunks, without gradient.

A patch is scored by the cross-attention that will pool the chosen ones: the softmax over patches of
its logits, averaged over heads and tokens. "exact" keeps the logits of all patches, a few numbers
each, and normalizes them once, so that the answer is that of a single pass over everything,
whatever the chunks. "official" compares each chunk with the best so far and normalizes over these
candidates only; with several heads the answer then depends on the chunks, since the normalizers of
the heads, and with them their shares in the mean, differ.

Shapes: `B` bags, `N` patches of the largest, `M` chosen ones, `D` width of an embedding, `H` heads,
`T` tokens.
References: {cite}`bergner2023iterative`.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from cpic.linalg._inputs import check_choice
from cpic.nn._checks import check_positive
from cpic.nn.ips._bags import Bags, Patches, as_bags, shuffled

Encoder = Callable[[Tensor], Tensor]
"""Maps patches `(n, *)` to embeddings `(n, D)`."""


class Scorer(Protocol):
    """What ranks patches, such as `cpic.nn.ips.CrossAttention`."""

    def logits(self, embeddings: Tensor, indices: Tensor, /) -> Tensor:
        """Logits `(B, H, T, k)` of embeddings `(B, k, D)` of patches, int64 `(B, k)` on the CPU."""
        ...


class Selection(NamedTuple):
    """The chosen patches of each bag, the best first.

    Attributes:
        indices: int64 `(B, M)` on the CPU, in the bag as it was given; -1 where a bag has fewer.
        mask: bool `(B, M)` on the CPU, False there.
        scores: `(B, M)`, those by which they were chosen; 0 there. None if nothing was scored,
            because all bags have at most M patches.
        all_scores: `(B, N)`, of all patches, which sum to 1; 0 where there is none. None if nothing
            was scored, and for "official", which forgets them.
        embeddings: `(B, M, D)`, for "official", which has them at hand; else None.
    """

    indices: Tensor
    mask: Tensor
    scores: Tensor | None = None
    all_scores: Tensor | None = None
    embeddings: Tensor | None = None


@torch.no_grad()
def select(
    patches: Patches | Bags,
    encoder: Encoder,
    scorer: Scorer,
    *,
    m: int,
    i: int | None = None,
    mask: Tensor | None = None,
    by: Literal["exact", "official"] = "exact",
    shuffle: Literal["batch", "instance"] | None = None,
    generator: torch.Generator | None = None,
) -> Selection:
    """The `m` patches of each bag that cross-attention weighs most, read in chunks of `i`.

    Every patch is read and encoded once, in evaluation mode and without gradient; modules return to
    their mode. Memory grows with `m` and `i`, and for "exact" with the number of logits. If all
    bags have at most `m` patches, all are chosen, and nothing is read.

    Args:
        patches: A tensor `(B, N, *)`, or a sequence with one tensor `(N_b, *)` or `Bag` for each
            image.
        encoder: Maps patches `(n, *)` to embeddings `(n, D)`; patches are moved to its parameters.
        scorer: What ranks embeddings.
        m: Number of patches to choose.
        i: Number of patches of each bag that are encoded at once; `m` by default.
        mask: bool `(B, N)`, False where a tensor is padded; such patches are not encoded.
        by: "exact": the answer of one pass over all patches, for any `i`. "official": the published
            one {cite}`bergner2023iterative`, where each chunk is compared with the best so far.
        shuffle: Resolve ties in random order, one for all bags ("batch") or one for each
            ("instance"); None: by position. "official" also visits patches in this order.
        generator: Draws the order, on the CPU; None is torch's own.

    Returns:
        Indices in the bags as given, and scores.

    Raises:
        ValueError: If `m` or `i` is below 1, an option is unknown, there is a bag without patches,
            the encoder returns another shape, or a score is not finite.

    Example:
        >>> from cpic.nn.ips import CrossAttention
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <torch._C.Generator object at ...>
        >>> scorer = CrossAttention(8, heads=2)
        >>> chosen = select(torch.randn(3, 100, 8), torch.nn.Identity(), scorer, m=5, i=10)
        >>> chosen.indices.shape, chosen.all_scores.shape
        (torch.Size([3, 5]), torch.Size([3, 100]))
    """
    check_positive("select", m=m, i=m if i is None else i)
    check_choice("select", "by", by, ("exact", "official"), "see its docstring")
    check_choice("select", "shuffle", shuffle, (None, "batch", "instance"), "see its docstring")
    bags = as_bags(patches, mask)
    if bags.largest <= m:
        return everything(bags)
    order = shuffled(bags, shuffle, generator)
    run = _exact if by == "exact" else _official
    with evaluating(encoder, scorer):
        return run(bags, order, encoder, scorer, m, i or m)


def everything(bags: Bags) -> Selection:
    """All patches of all bags."""
    mask = bags.valid(0, bags.largest)
    return Selection(bags.order[:, : bags.largest].masked_fill(~mask, -1), mask)


def encode(bags: Bags, indices: Tensor, valid: Tensor, encoder: Encoder, *others: Any) -> Tensor:
    """Embeddings `(B, k, D)` of the patches at the valid ones of indices `(B, k)`, else zeros.

    Args:
        bags: The bags.
        indices: int64 `(B, k)` on the CPU.
        valid: bool `(B, k)` on the CPU.
        encoder: Maps patches to embeddings; they are moved to its parameters, or if it has none,
        others: to those of the first of these that has.

    Raises:
        ValueError: If the encoder does not return one vector for each patch.
    """
    patches = bags.read(indices, valid).to(home(bags.device, encoder, *others))
    found = encoder(patches)
    if found.ndim != 2 or len(found) != len(patches):
        raise ValueError(
            f"select needs an encoder that maps patches (n, ...) to (n, D), got "
            f"{tuple(found.shape)} for {tuple(patches.shape)}; flatten what it returns."
        )
    if bool(valid.all()):
        return found.view(*valid.shape, -1)
    where = valid.flatten().nonzero()[:, 0].to(found.device)
    whole = found.new_zeros(valid.numel(), found.shape[1]).index_copy(0, where, found)
    return whole.view(*valid.shape, -1)


def home(default: torch.device, *parts: Any) -> torch.device:
    """The device of the first parameter of these modules, or another one if they have none."""
    modules = (part for part in parts if isinstance(part, nn.Module))
    first = next((one for module in modules for one in module.parameters()), None)
    return default if first is None else first.device


def weights(logits: Tensor, valid: Tensor) -> Tensor:
    """Softmax over the valid ones of the last axis: logits `(B, H, T, k)`, valid `(B, k)`."""
    valid = valid.to(logits.device)[:, None, None]
    return logits.masked_fill(~valid, -torch.inf).softmax(-1)


@contextlib.contextmanager
def evaluating(*parts: Any) -> Iterator[None]:
    """Modules in evaluation mode; afterwards each one, also within them, has its own mode again."""
    modules = [one for part in parts if isinstance(part, nn.Module) for one in part.modules()]
    before = [one.training for one in modules]
    for one in modules:
        one.training = False
    try:
        yield
    finally:
        for one, mode in zip(modules, before, strict=True):
            one.training = mode


def _exact(
    bags: Bags, order: Tensor, encoder: Encoder, scorer: Scorer, m: int, i: int
) -> Selection:
    parts = []
    # In the order of the bags, in which the tiles of a file lie: another one only resolves ties.
    for start in range(0, bags.largest, i):
        stop = min(start + i, bags.largest)
        indices = bags.order[:, start:stop]
        embeddings = encode(bags, indices, bags.valid(start, stop), encoder, scorer)
        parts.append(scorer.logits(embeddings, indices))
    valid = bags.valid(0, bags.largest)
    scores = _scores(torch.cat(parts, -1), valid)
    whole = scores.new_zeros(len(bags), bags.width)
    whole.scatter_(1, bags.order[:, : bags.largest].to(whole.device), scores)
    order = order[:, : bags.largest]
    ranked, places = _best(whole.gather(1, order.to(whole.device)), valid, m)
    mask = valid.gather(1, places)
    return Selection(order.gather(1, places).masked_fill(~mask, -1), mask, ranked, whole)


def _official(
    bags: Bags, order: Tensor, encoder: Encoder, scorer: Scorer, m: int, i: int
) -> Selection:
    held, mask = order[:, :m], bags.valid(0, m)
    embeddings = encode(bags, held, mask, encoder, scorer)
    scores = embeddings.new_zeros(mask.shape)
    for start in range(m, bags.largest, i):
        stop = min(start + i, bags.largest)
        valid, indices = bags.valid(start, stop), order[:, start:stop]
        more = encode(bags, indices, valid, encoder, scorer)
        candidates = torch.cat([embeddings, more], 1)
        held, mask = torch.cat([held, indices], 1), torch.cat([mask, valid], 1)
        logits = scorer.logits(candidates, held)
        scores, places = _best(_scores(logits, mask), mask, m)
        held, mask = held.gather(1, places), mask.gather(1, places)
        at = places.to(candidates.device)[..., None].expand(-1, -1, candidates.shape[2])
        embeddings = candidates.gather(1, at)
    return Selection(held.masked_fill(~mask, -1), mask, scores, None, embeddings)


def _best(scores: Tensor, valid: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """The largest valid scores `(B, m)` and, on the CPU, their places; the first of equal ones."""
    # The softmax of a patch that is there may be 0, as that of one that is not.
    keys = scores.masked_fill(~valid.to(scores.device), -1.0)
    found = keys.sort(dim=1, descending=True, stable=True)
    return found.values[:, :m].clamp_min(0), found.indices[:, :m].cpu()


def _scores(logits: Tensor, valid: Tensor) -> Tensor:
    """Mean weights `(B, k)` over heads and tokens, equal for patches with equal logits."""
    # Sums over leading axes are made in blocks of patches and rounded differently at their ends.
    shares = weights(logits, valid).flatten(1, 2).transpose(1, 2).contiguous()
    scores = shares.mean(-1)
    # The only value that a selection reads from the device besides its answer.
    if not bool(scores.isfinite().all()):
        bag = int((~scores.isfinite()).any(1).nonzero()[0])
        raise ValueError(
            f"select needs finite scores, got NaN or infinity in bag {bag}; check its patches or "
            "features, and the weights of the encoder."
        )
    return scores
