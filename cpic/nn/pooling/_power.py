"""Powers of covariances: their square root by any method, and scaled by small eigenvalues."""

from typing import Any

import torch
from torch import Tensor, nn

from cpic.linalg import powerm, sqrtm
from cpic.linalg._eigh import descending


class MatrixPower(nn.Module):
    r"""A power of covariances, by default the square root, with a choice of both passes.

    Symmetric positive semi-definite input is assumed, as `CovariancePool` gives it, so that nothing
    is read back from the device. What the methods mean, and how they are bounded, is said in
    `cpic.linalg.sqrtm`, and for other powers in `cpic.linalg.powerm`.

    | published name | options |
    |---|---|
    | MPN-COV, SVD-Original | `gradient="original"` |
    | SVD-Trunc, SVD-TopN, SVD-Taylor | `gradient="trunc"`, `"topn"`, `"taylor"` |
    | SVD-Padé | `gradient="pade"`, whose approximant is the function itself |
    | SVD-PI | `gradient="power"`: one eigenvector after the other |
    | SVD-Newton | `gradient="newton", steps=10` |
    | iSQRT-COV | `method="newton_schulz", steps=5` |
    | MPA-Lya, MTP-Lya | `method="pade"`, `method="taylor"` |
    | exact, without gaps | the default |

    Args:
        power: The exponent; 0.5 as published.
        method: Method of `sqrtm`; only "eigh" for other powers.
        gradient: Gradient of `sqrtm`, or for other powers of `powerm`; None for the default.
        **options: Further options of `sqrtm`, or `powerm`.

    Raises:
        ValueError: If a name is unknown or an option out of range.
        TypeError: If the gradient has no such option.

    Example:
        >>> MatrixPower(1 / 3)(torch.diag(torch.tensor([8.0, 1.0])))
        tensor([[2., 0.],
                [0., 1.]])
    """

    def __init__(
        self,
        power: float = 0.5,
        *,
        method: str = "eigh",
        gradient: str | None = None,
        **options: Any,
    ):
        super().__init__()
        self.power, self.method, self.gradient, self.options = power, method, gradient, options
        if power != 0.5 and method != "eigh":
            raise ValueError(
                f'MatrixPower needs method "eigh" for the power {power}, got {method!r}; only the '
                "square root has others."
            )
        self(torch.eye(2))  # a wrong option is an error now, not in the first step

    def forward(self, matrix: Tensor) -> Tensor:
        """Powers `(*b, n, n)`, in the dtype of the matrices."""
        if self.power == 0.5:
            options = {"method": self.method, "gradient": self.gradient, **self.options}
            return sqrtm(matrix, check=False, **options)
        gradient = self.gradient or "exact"
        return powerm(matrix, self.power, gradient=gradient, check=False, **self.options)

    def extra_repr(self) -> str:
        """The options."""
        given = {"gradient": self.gradient, **self.options}
        words = [f"{name}={value!r}" for name, value in given.items() if value is not None]
        return ", ".join([f"power={self.power}", f"method={self.method!r}", *words])


class ScaledRoot(nn.Module):
    r"""The square root times 1 + |C^(1/2) exp(-C)|, the scaling eigen branch (SEB).

    Small eigenvalues are those that exp(-C) keeps, so covariances with many of them get a larger
    gain {cite}`song2022eigenvalues`. The published branch forms an n x n matrix and recovers its
    norm element by element, where an entry of zero gives 0 / 0; it is the scalar
    (sum of l exp(-2 l))^(1/2). Its derivative is that of a smooth function of C, without gaps.

    Args:
        root: The square root.

    Example:
        >>> ScaledRoot()(torch.eye(2))[0, 0]
        tensor(1.5203)
    """

    def __init__(self, root: MatrixPower | None = None):
        super().__init__()
        self.root = root or MatrixPower()

    def forward(self, matrix: Tensor) -> Tensor:
        """Scaled roots `(*b, n, n)`; second derivatives do not include those of the gain."""
        with torch.no_grad():
            values, vectors = descending((matrix + matrix.mT) / 2)
            values = values.clamp(min=0)
            decay = (-2 * values).exp()
            gain = (values * decay).sum(-1).sqrt()[..., None, None]
            slope = (1 - 2 * values) * decay / (2 * torch.where(gain > 0, gain, torch.inf))[..., 0]
            slope = vectors * slope.unsqueeze(-2) @ vectors.mT
        # The gain with its derivative: the second term is zero.
        change = (slope * (matrix - matrix.detach())).sum((-2, -1), keepdim=True)
        return self.root(matrix) * (1 + gain + change)


class Switched(nn.Module):
    """A power that is replaced by another one within a training, the hybrid protocol.

    An approximate root early, when covariances are ill-conditioned, and an exact one after the last
    decay of the learning rate {cite}`song2021approximate`. Neither has parameters, so weights and
    optimizer carry on.

    Args:
        first: The power before the switch.
        then: The power after it.

    Attributes:
        late: Whether the switch has happened; whoever trains sets it.

    Example:
        >>> power = Switched(MatrixPower(method="newton_schulz", steps=5), MatrixPower())
        >>> power.late = True
        >>> power(torch.diag(torch.tensor([4.0, 9.0]))).diagonal()
        tensor([2., 3.])
    """

    def __init__(self, first: nn.Module, then: nn.Module):
        super().__init__()
        self.first, self.then, self.late = first, then, False

    def forward(self, matrix: Tensor) -> Tensor:
        """Powers `(*b, n, n)`."""
        return self.then(matrix) if self.late else self.first(matrix)
