"""Second-order pooling from maps to vectors, and the representations by their published names."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cpic.linalg._inputs import check_choice
from cpic.nn._checks import check_positive
from cpic.nn.pooling._bilinear import Bilinear, CompactBilinear, GlobalAverage
from cpic.nn.pooling._covariance import CovariancePool, triangle
from cpic.nn.pooling._power import MatrixPower, ScaledRoot


class SecondOrder(nn.Module):
    r"""Covariance, power, vector: global covariance pooling {cite}`li2017second`.

    Sums and matrices are float64 on the device of the maps; the vectors have the dtype of the maps.

    Args:
        n_channels: Channels c of the maps.
        power: The power of the covariance, a `MatrixPower` or `ScaledRoot`; None for the square
            root with its exact gradient.
        shrinkage: As in `CovariancePool`.
        vector: Return the upper triangle; False returns all c c entries.
        weighted: Of the triangle, as in `triangle`.
        check: False skips the check for NaN and infinity, which reads one number back.

    Raises:
        ValueError: If a size or option is out of range; when called, if the maps have other
            channels, no position, or are not finite.

    Example:
        >>> SecondOrder(3)(torch.rand(2, 3, 4, 4)).shape
        torch.Size([2, 6])
    """

    def __init__(
        self,
        n_channels: int,
        power: nn.Module | None = None,
        *,
        shrinkage: float = 0.0,
        vector: bool = True,
        weighted: bool = False,
        check: bool = True,
    ):
        super().__init__()
        check_positive("SecondOrder", n_channels=n_channels)
        self.n_channels, self.vector, self.weighted = n_channels, vector, weighted
        self.n_outputs = n_channels * (n_channels + 1) // 2 if vector else n_channels**2
        self.covariance = CovariancePool(shrinkage=shrinkage, check=check)
        self.power = MatrixPower() if power is None else power

    def forward(self, maps: Tensor, mask: Tensor | None = None) -> Tensor:
        """Vectors `(b, n_outputs)` of maps `(b, c, *positions)`, over the positions of the mask."""
        if maps.ndim < 3 or maps.shape[1] != self.n_channels:
            raise ValueError(
                f"SecondOrder needs maps (b, {self.n_channels}, *positions), got shape "
                f"{tuple(maps.shape)}; make it for that number of channels."
            )
        root = self.power(self.covariance(maps, mask))
        found = triangle(root, weighted=self.weighted) if self.vector else root.flatten(1)
        return found.to(maps.dtype)


_POWERS: dict[str, Callable[[int], nn.Module]] = {
    "MPNCOV": lambda n: MatrixPower(method="newton_schulz", steps=5),
    "SVD_Original": lambda n: MatrixPower(gradient="original"),
    "SVD_Trunc": lambda n: MatrixPower(gradient="trunc"),
    # As published, the 50 smallest are dropped; below 51 channels that would be all.
    "SVD_TopN": lambda n: MatrixPower(gradient="topn", n_keep=n - 50 if n > 50 else None),
    "SVD_Taylor": lambda n: MatrixPower(gradient="taylor"),
    "SVD_Pade": lambda n: MatrixPower(gradient="pade"),
    "SVD_PI": lambda n: MatrixPower(gradient="power"),
    "SVD_Newton": lambda n: MatrixPower(gradient="newton", steps=10),
    "SVD_Lyapunov": lambda n: MatrixPower(),
    "MPA": lambda n: MatrixPower(method="pade"),
    "MTP": lambda n: MatrixPower(method="taylor"),
    "Auto": lambda n: MatrixPower(method="auto"),
    "SEB": lambda n: ScaledRoot(MatrixPower(gradient="original")),
}
REPRESENTATIONS = (*_POWERS, "GAvP", "BCNN", "CBP")


def representation(name: str, n_channels: int, **options: Any) -> nn.Module:
    """A pooling layer by its published name.

    "MPNCOV" is iSQRT-COV with 5 steps; names that begin with `SVD` are the square root by
    eigenvalues with the seven gradients, `SVD_Lyapunov` with the exact one; "MPA" and "MTP" the
    approximants; "Auto" the automatic choice; "SEB" the scaling eigen branch; "GAvP" global average
    pooling; "BCNN" bilinear and "CBP" compact bilinear pooling.

    Args:
        name: One of `REPRESENTATIONS`.
        n_channels: Channels of the maps.
        **options: Options of `SecondOrder`, `Bilinear`, `CompactBilinear` or `GlobalAverage`; of
            second order also `power`, an exponent other than 1/2 for those that begin with `SVD`.

    Returns:
        A module from maps and an optional mask to vectors, with their length as `n_outputs`.

    Raises:
        ValueError: If the name is unknown.

    Example:
        >>> representation("MPNCOV", 256).n_outputs
        32896
    """
    known = "see `cpic.nn.pooling.representation`"
    check_choice("representation", "name", name, REPRESENTATIONS, known)
    if name == "GAvP":
        return GlobalAverage(n_channels, **options)
    if name == "BCNN":
        return Bilinear(n_channels, **options)
    if name == "CBP":
        draw = torch.Generator().manual_seed(1)
        return CompactBilinear(n_channels, **{"generator": draw, **options})
    made = _POWERS[name](n_channels)
    power = options.pop("power", 0.5)
    if power != 0.5:
        if not isinstance(made, MatrixPower) or made.method != "eigh":
            raise ValueError(f"{name} needs the power 0.5, got {power}; take one of SVD_... .")
        gradient = None if name == "SVD_Lyapunov" else made.gradient
        made = MatrixPower(power, method=made.method, gradient=gradient, **made.options)
    return SecondOrder(n_channels, made, **options)
