"""Bags, encoders and scorers of the tests, and selection written down in the plainest way."""

import torch
from torch import nn

from cpic.nn.ips import CrossAttention


class File:
    """A bag that is read on demand, and remembers what was asked."""

    def __init__(self, patches):
        self.patches, self.asked = patches, []

    def __len__(self):
        return len(self.patches)

    def read(self, indices):
        self.asked += indices.tolist()
        return self.patches[indices]


class Exact(nn.Module):
    """An embedding without rounding: equal patches get equal numbers in a chunk of any size."""

    def forward(self, patches):
        assert not self.training
        assert not torch.is_grad_enabled()
        return patches


class ExactScorer(nn.Module):
    """Logits of 8 heads that are sums of a few multiples of 1/8, so never rounded."""

    def __init__(self, width, *, heads=8, tokens=2):
        super().__init__()
        weight = torch.randint(-8, 9, (heads, tokens, width), dtype=torch.float64) / 8
        self.weight = nn.Parameter(weight)

    def logits(self, embeddings, indices):
        return torch.einsum("htd,bkd->bhtk", self.weight, embeddings)


def whole(patches, scorer, m, mask):
    """All embeddings at once, a softmax over the patches that are there, and a stable sort."""
    found = []
    for bag, there in zip(patches, mask, strict=True):
        indices = there.nonzero()[:, 0]
        with torch.no_grad():
            logits = scorer.logits(bag[indices][None], indices[None])
        # With the axis of the patches in front, so that equal patches get equal sums.
        scores = logits.softmax(-1).flatten(0, 2).T.contiguous().mean(-1)
        found.append(indices[scores.sort(descending=True, stable=True).indices[:m]].tolist())
    return found


def pool(width=16, **options):
    return CrossAttention(width, **options).double()
