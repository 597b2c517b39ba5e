"""Every function on every device, with its gradient."""

import torch

from cpic import linalg
from cpic.linalg._gaps import _METHODS
from tests.devices import drawn, everywhere, graded, missing, source


def symmetric(device, dtype):
    matrix = drawn(device, dtype, 2, 4, 4)
    return matrix @ matrix.mT + torch.diag(1 + drawn(device, dtype, 4))


def of_signs(parts):
    """Eigenvectors and singular vectors without their signs."""
    return [part if part.ndim < 3 else part.square() for part in parts]


def safely(matrix):
    """Eigenvectors of torch, with the gradients of this package."""
    with linalg.safe_gradients():
        return graded(lambda x: torch.linalg.eigh(x).eigenvectors.square(), matrix)


TABLE = {
    "maxvol Maxvol": lambda d, t: linalg.maxvol(drawn(d, t, 2, 9, 3)),
    "maxvol, deficient": lambda d, t: linalg.maxvol(
        drawn(d, t, 2, 9, 1).expand(2, 9, 3), on_deficient="report"
    ),
    "rect_maxvol RectMaxvol": lambda d, t: linalg.rect_maxvol(drawn(d, t, 2, 9, 3), n_rows=5),
    "rank_revealing_lu RankRevealingLU": lambda d, t: linalg.rank_revealing_lu(
        drawn(d, t, 2, 9, 4), max_rank=3
    ),
    "rank_revealing_lu, rook": lambda d, t: linalg.rank_revealing_lu(
        drawn(d, t, 2, 9, 4), tol=1e-3, search="rook", generator=source()
    ),
    "svd": lambda d, t: graded(
        lambda x: of_signs(linalg.svd(x, gradient="taylor")), drawn(d, t, 2, 5, 3)
    ),
    "sqrtm": lambda d, t: graded(linalg.sqrtm, symmetric(d, t)),
    "sqrtm, by gaps": lambda d, t: graded(
        lambda x: linalg.sqrtm(x, gradient="trunc"), symmetric(d, t)
    ),
    "sqrtm, by iteration": lambda d, t: graded(
        lambda x: linalg.sqrtm(x, method="newton_schulz"), symmetric(d, t)
    ),
    "safe_gradients": lambda d, t: safely(symmetric(d, t)),
    "powerm": lambda d, t: graded(lambda x: linalg.powerm(x, 0.3), symmetric(d, t)),
    "powerm, by gaps": lambda d, t: graded(
        lambda x: linalg.powerm(x, -0.5, gradient="pade"), symmetric(d, t)
    ),
}
for method in ("pade", "taylor", "minimax", "auto"):
    TABLE[f"sqrtm {method}"] = lambda d, t, method=method: graded(
        lambda x: linalg.sqrtm(x, method=method), symmetric(d, t)
    )
TABLE["sqrtm, of high degree"] = lambda d, t: graded(
    lambda x: linalg.sqrtm(x, method="pade", degree=12, scale="bound"), symmetric(d, t)
)
for method in ("eigh", "newton_schulz", "pade"):
    TABLE[f"inverse_sqrtm {method}"] = lambda d, t, method=method: graded(
        lambda x: linalg.inverse_sqrtm(x, method=method), symmetric(d, t)
    )
for method in _METHODS:
    TABLE[f"eigh {method}"] = lambda d, t, method=method: graded(
        lambda x: of_signs(linalg.eigh(x, gradient=method)), symmetric(d, t)
    )
    TABLE[f"inverse_gap {method}"] = lambda d, t, method=method: graded(
        lambda x: linalg.inverse_gap(x, method), drawn(d, t, 2, 4)
    )


test_results_and_gradients_lie_where_the_input_does = everywhere(TABLE)


def test_the_table_is_complete():
    assert not missing(TABLE, linalg.__all__)
