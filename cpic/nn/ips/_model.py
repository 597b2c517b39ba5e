"""Classifiers of images of any size: choose patches without gradient, then train on them.

Shapes: `B` images, `N` patches of the largest, `M` chosen ones, `D` width of an embedding.
References: {cite}`bergner2023iterative`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cpic.nn.ips._bags import Bags, Patches, as_bags
from cpic.nn.ips._choosers import Chooser
from cpic.nn.ips._pools import CrossAttention, GatedAttention, WithCovariance
from cpic.nn.ips._select import Selection, encode
from cpic.nn.ips._tasks import Heads, Target


class Answer(NamedTuple):
    """What a classifier says of a batch of images.

    Attributes:
        logits: `(B, n_classes)` for each task.
        selection: The patches it is based on.
        penalty: A term of the loss, if the model has one; else None.
    """

    logits: dict[str, Tensor]
    selection: Selection
    penalty: Tensor | None = None


class PatchClassifier(nn.Module):
    """Patches are chosen, encoded with gradient and pooled to tokens for the heads of the tasks.

    The pool that ranks patches is the one that is trained: this is how the choice gets better,
    although no gradient goes through it {cite}`bergner2023iterative`.

    Args:
        encoder: Maps patches `(n, *)` to embeddings `(n, D)`.
        pool: Maps embeddings to tokens, and ranks them.
        targets: The tasks.
        choose: How to choose; `Iterative`, `RandomPatches`, `AllPatches`, `CrossPatches`, or a
            function of one's own.

    Raises:
        ValueError: If the tokens of the pool do not fit the tasks.

    Example:
        >>> from cpic.nn.ips import ConvEncoder, CrossAttention, Iterative, Target
        >>> model = PatchClassifier(
        ...     ConvEncoder(1, widths=(8,), n_dims=16),
        ...     CrossAttention(16, heads=2),
        ...     [Target("digit", 10)],
        ...     choose=Iterative(m=4, i=10),
        ... )
        >>> answer = model(torch.rand(2, 100, 1, 8, 8))
        >>> answer.logits["digit"].shape, answer.selection.indices.shape
        (torch.Size([2, 10]), torch.Size([2, 4]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        pool: CrossAttention | GatedAttention | WithCovariance,
        targets: Sequence[Target],
        *,
        choose: Chooser,
    ):
        super().__init__()
        self.encoder, self.pool, self.choose = encoder, pool, choose
        self.heads = Heads(targets, pool.width, n_tokens=pool.n_tokens)

    def forward(
        self,
        patches: Patches | Bags,
        views: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Answer:
        """Logits of B images, differentiable in all parameters.

        Args:
            patches: A tensor `(B, N, *)`, or one tensor or `Bag` for each image.
            views: Small views of the images, for other models; not looked at here.
            mask: bool `(B, N)`, False where a tensor is padded.
            generator: What the chooser draws from in training; None is torch's own.

        Raises:
            ValueError: If the bags or what the encoder returns do not fit, or a score is not
                finite; where nothing is scored, NaN in a tensor leads to NaN in the logits.
        """
        bags = as_bags(patches, mask)
        chosen = self.choose(
            bags, self.encoder, self.pool, training=self.training, generator=generator
        )
        embeddings = encode(bags, chosen.indices.clamp_min(0), chosen.mask, self.encoder, self.pool)
        tokens = self.pool(embeddings, chosen.mask, chosen.indices)
        return Answer(self.heads(tokens), chosen)
