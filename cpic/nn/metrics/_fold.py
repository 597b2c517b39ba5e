r"""Accumulate a metric over all samples of a fold.

The mean of batch means overweights the samples of a small last batch, and the root of a mean is
not the mean of roots: so sums and counts are accumulated, in float64.
"""

import math

from torch import Tensor

from cpic.nn.metrics._quantiles import check_pair


class FoldMean:
    """Mean of a value over all samples of a fold, whatever the batches.

    Sums of several processes are added: `a + b`.

    Args:
        total: Initial sum.
        count: Initial number of samples.

    Example:
        >>> mean = FoldMean()
        >>> mean.add(torch.tensor([1.0, 2.0, 3.0]))
        >>> mean.add(torch.tensor([10.0]))
        >>> mean.value
        4.0
    """

    def __init__(self, total: float = 0.0, count: int = 0):
        self.total, self.count = total, count

    def add(self, values: Tensor) -> None:
        """Add the samples `values` `(n,)`; no gradient is kept."""
        self.total += float(values.detach().double().sum())
        self.count += values.numel()

    @property
    def value(self) -> float:
        """The mean so far; NaN without samples."""
        return self.total / self.count if self.count else math.nan

    def __add__(self, other: "FoldMean") -> "FoldMean":
        return type(self)(total=self.total + other.total, count=self.count + other.count)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value:.6g}, {self.count} samples)"


class RMSE:
    """Root of the mean squared error over all samples of a fold, {eq}`eq-brats-rmse`.

    Args:
        scale: Factor for predictions and targets. 1825 gives days if targets are fractions of five
            years.

    Example:
        >>> error = RMSE()
        >>> error.add(torch.tensor([0.5, 0.5]), torch.tensor([0.4, 0.6]))
        >>> round(error.value, 2)  # days
        182.5
    """

    def __init__(self, *, scale: float = 5 * 365.0):
        self.scale, self.squares = scale, FoldMean()

    def add(self, predictions: Tensor, target: Tensor) -> None:
        """Add samples: predictions `(n,)` for targets `(n,)`; no gradient is kept."""
        check_pair("RMSE", predictions, target, None)
        self.squares.add((predictions.detach().double() - target.detach().double()).square())

    @property
    def value(self) -> float:
        """The error so far; NaN without samples."""
        return self.scale * math.sqrt(self.squares.value)

    def __add__(self, other: "RMSE") -> "RMSE":
        result = RMSE(scale=self.scale)
        result.squares = self.squares + other.squares
        return result

    def __repr__(self) -> str:
        return f"RMSE({self.value:.6g}, {self.squares.count} samples)"
