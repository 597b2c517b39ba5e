"""The fastest square root that is certain to be within 1e-4 of the true one."""

from dataclasses import replace

import torch
from torch import Tensor

from cpic.linalg._how import How
from cpic.linalg._iterations import identity_of, largest_at_most, trace

# Rows up to which nine products on the CPU take at most half as long as eigenvalues.
_SMALL = 96
# Condition up to which those products suffice, and the least share of the trace that hints at it:
# (sum l)^2 / (n sum l^2) is at least 4 c / (1 + c)^2 for eigenvalues within a factor c.
LEAST = 0.04
_EVEN = 0.35


def automatic(matrix: Tensor, how: How) -> How:
    """The method to take; reads one number back from the CPU, and none from a GPU."""
    gradient = matrix.requires_grad and torch.is_grad_enabled()
    if matrix.device.type == "cuda":
        return replace(how, method="minimax", gradient="iterative", steps=None)
    n = matrix.shape[-1]
    if not gradient and 4 < n <= _SMALL and _well_conditioned(matrix.detach()):
        return replace(how, method="few", gradient="iterative")
    return replace(how, method="eigh")


def _well_conditioned(matrix: Tensor) -> bool:
    squares = matrix.square().sum((-2, -1), keepdim=True)
    even = trace(matrix).square() >= _EVEN * matrix.shape[-1] * squares
    if not bool(even.all() & (squares > 0).all()):
        return False
    low = matrix - LEAST * largest_at_most(matrix @ matrix) * identity_of(matrix)
    return not bool(torch.linalg.cholesky_ex(low).info.any())
