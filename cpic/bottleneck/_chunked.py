r"""Evaluate entries in chunks, with the memory of one chunk and exact gradients.

For entries E_i(theta) and a loss L, dL/dtheta is the sum over chunks of (dL/dE)^T dE/dtheta. The
forward pass evaluates one chunk after the other and stores only the values. The backward pass
receives dL/dE, evaluates each chunk again with its graph, adds its part and frees the graph. This
costs one more evaluation and does not change the result {cite}`chen2016training`.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cpic.linalg._inputs import check_least
from cpic.tt import Entries


def chunked(entries: Entries, size: int) -> Entries:
    """The same entries, evaluated at `size` multi-indices of each tensor at a time.

    Values and gradients, also with respect to the closure of `entries`, are those of one
    call, up to the order of sums. Each chunk is evaluated twice, with the same state of
    the global random generators (dropout draws the same masks); other generators are not
    reset. Layers that depend on the other multi-indices of a call (batch statistics)
    depend on the chunks; freeze them {cite}`chen2016training`.

    Args:
        entries: Maps int64 multi-indices `(K, n, d)` to values `(K, n)`.
        size: Number of multi-indices of each tensor in a chunk, at least 1: `K * size` values.

    Returns:
        Entries with the peak memory of one chunk in both passes.

    Raises:
        ValueError: If `size` is below 1.

    Example:
        >>> weight = torch.ones((), requires_grad=True)
        >>> values = chunked(lambda i: weight * i.sum(-1), 2)(torch.arange(5).reshape(1, 5, 1))
        >>> values.sum().backward()
        >>> float(weight.grad)
        10.0
    """
    check_least("chunked", "it counts multi-indices", size=size)

    def in_chunks(indices: Tensor) -> Tensor:
        parts = indices.split(size, 1)
        return torch.cat([checkpoint(entries, part, use_reentrant=False) for part in parts], 1)

    return in_chunks
