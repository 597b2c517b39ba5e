r"""Gradients of features that include the dependence of the basis on the trains.

The features of a batch are U_r S_r, and X X^T = U S^2 U^T: they are a function only of the inner
products of the samples. Their values are computed from orthogonalized trains, accurate to
rounding, and their gradient from the small matrix of inner products G, whose entries are
polynomials in the cores. No gradient passes through the QR of a rank-deficient stack.

With the accurate eigenvectors U held constant, the value of U^T G U is diagonal, so that the
eigenvectors of its eigendecomposition are the identity, and its derivatives those of U and S^2.

Shapes: `n` samples, `p` of their `r` features not zero.
References: {cite}`ionescu2015matrix`.
"""

import torch
from torch import Tensor

from cpic.linalg._eigh import eigh_with
from cpic.linalg._gaps import Gap, gap_function


def gap_of(operation: str, gradient: str, options: dict) -> Gap | None:
    """The function of the eigenvalues for `gradient`; None for a constant basis."""
    if gradient == "detached":
        if options:
            raise TypeError(
                f'{operation} needs no options with gradient="detached", got {sorted(options)}; '
                "they belong to the other gradients."
            )
        return None
    method = "original" if gradient == "exact" else gradient
    who = f'{operation} with a gradient other than "detached" and "exact"'
    return gap_function(who, method, options)


def components(gram: Tensor, left: Tensor, values: Tensor, gap: Gap) -> tuple[Tensor, Tensor]:
    """The values of `left (n, p)` and `values (p,)`, with the gradient of a function of `gram`.

    Args:
        gram: Inner products `(n, n)` of the samples.
        left: Its eigenvectors, accurate.
        values: Roots of the eigenvalues, accurate and positive.
        gap: Inverse gaps of eigenvalues, for the gradient.
    """
    with torch.no_grad():
        frame, levels = _completed(gram, left, values)
    change = frame.mT @ (gram - gram.detach()) @ frame
    squares, turn = eigh_with(torch.diag(levels) + (change + change.mT) / 2, gap)
    order = turn.detach()  # a permutation with signs: the matrix is diagonal
    squares = order.square() @ squares
    vectors = (frame @ turn @ order.mT)[:, : len(values)]
    return vectors, values + (squares[: len(values)] - levels[: len(values)]) / (2 * values)


def _completed(gram: Tensor, left: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """All eigenvectors, with eigenvalues, where `left` has the first."""
    rest = torch.linalg.qr(left, mode="complete").Q[:, left.shape[1] :]
    squares, turn = torch.linalg.eigh(rest.mT @ gram @ rest)
    levels = torch.cat([values.square(), squares.flip(-1).clamp_min(0)])
    return torch.cat([left, rest @ turn.flip(-1)], 1), levels
