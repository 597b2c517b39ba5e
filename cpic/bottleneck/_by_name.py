"""Bottlenecks by name, for configurations."""

from collections.abc import Sequence
from typing import Any

from cpic.bottleneck._base import Bottleneck
from cpic.bottleneck._cp import CP
from cpic.bottleneck._cross import Cross
from cpic.bottleneck._dense import TTSVD, BlockTT, Identity, MatrixSVD
from cpic.linalg._inputs import check_choice

BOTTLENECKS: dict[str, type[Bottleneck]] = {
    "cross": Cross,
    "tt_svd": TTSVD,
    "block_tt": BlockTT,
    "matrix_svd": MatrixSVD,
    "cp": CP,
    "identity": Identity,
}
"""The bottlenecks that `bottleneck` knows."""


def bottleneck(name: str, sizes: Sequence[int], **options: Any) -> Bottleneck:
    """A bottleneck by its name in `BOTTLENECKS`.

    Args:
        name: `"cross"`, `"tt_svd"`, `"block_tt"`, `"matrix_svd"`, `"cp"` or `"identity"`.
        sizes: Sizes of the modes of the entries.
        **options: `rank`, `n_trains` and `generator` of `Bottleneck`, and further arguments of
            that class.

    Returns:
        The bottleneck; call it with entries.

    Raises:
        ValueError: If there is no such bottleneck, or an argument is invalid.

    Example:
        >>> train = bottleneck("tt_svd", (8, 8), rank=2)(lambda i: i.sum(-1).double())
        >>> train.ranks
        (1, 2, 1)
    """
    check_choice("bottleneck", "name", name, BOTTLENECKS, '"cross" reads a few entries')
    return BOTTLENECKS[name](sizes, **options)
