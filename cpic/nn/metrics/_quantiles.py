r"""Score predicted quantiles.

The pinball loss of a prediction p for the quantile q of y is max((q - 1) e, q e), e = y - p; its
expectation is minimal at that quantile. The log-likelihood is that of a Laplace distribution
around the median, with its width from the outer quantiles.

Shapes: `n` samples, `q` quantiles.
References: {cite}`usvyatsov2021cherry`.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def pinball(
    predictions: Tensor, target: Tensor, *, quantiles: Sequence[float] = (0.2, 0.5, 0.8)
) -> Tensor:
    """Pinball loss {eq}`eq-osic-pinball`, summed over the quantiles, mean over the samples.

    Differentiable in both tensors {cite}`usvyatsov2021cherry`.

    Args:
        predictions: Predicted quantiles, `(n, q)`.
        target: True values, `(n,)`.
        quantiles: Levels of the quantiles, each between 0 and 1.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If shapes do not match, there is no sample, a quantile is not between 0 and 1,
            or a target is not finite.

    Example:
        >>> float(pinball(torch.tensor([[0.9, 1.0, 1.1]]), torch.tensor([1.2])))
        0.24...
    """
    if not all(0 < q < 1 for q in quantiles):
        raise ValueError(f"pinball needs quantiles between 0 and 1, got {tuple(quantiles)}.")
    check_pair("pinball", predictions, target, len(quantiles))
    level = predictions.new_tensor(quantiles)
    error = target[:, None] - predictions
    return torch.maximum((level - 1) * error, level * error).sum(1).mean()


def laplace_log_likelihood(
    predictions: Tensor,
    target: Tensor,
    *,
    scale: Tensor | float = 1.0,
    least_spread: float = 70.0,
    largest_error: float = 1000.0,
) -> Tensor:
    r"""Log-likelihood of each sample under a Laplace distribution, with clipping.

    With the spread s = max(p_high - p_low, 70) and the error d = min(\|p_middle - y\|, 1000), both
    in milliliters, this is -sqrt(2) d / s - log(sqrt(2) s), {eq}`eq-data-mlll`. Higher is better,
    and at most -4.595. The metric of a fold is the mean over all its samples, see `FoldMean`
    {cite}`usvyatsov2021cherry`.

    Args:
        predictions: Low, middle and high quantiles, `(n, 3)`.
        target: True values, `(n,)`.
        scale: Factor that converts both to milliliters, `(n,)` or a number.
        least_spread: Lower bound on the spread.
        largest_error: Upper bound on the error.

    Returns:
        Values `(n,)`.

    Raises:
        ValueError: If shapes do not match, there is no sample, or a target is not finite.

    Example:
        >>> quantiles = torch.tensor([[2500.0, 2600.0, 2700.0]])
        >>> laplace_log_likelihood(quantiles, torch.tensor([2600.0]))
        tensor([-5.6449])
    """
    check_pair("laplace_log_likelihood", predictions, target, 3)
    scale = torch.as_tensor(scale, dtype=target.dtype, device=target.device)
    if scale.ndim and scale.shape != target.shape:
        raise ValueError(
            f"laplace_log_likelihood needs a scale of shape {tuple(target.shape)} or a number, got "
            f"{tuple(scale.shape)}; pass one for each sample."
        )
    low, middle, high = predictions.unbind(1)
    spread = ((high - low) * scale).clamp_min(least_spread)
    error = ((middle - target) * scale).abs().clamp_max(largest_error)
    return -math.sqrt(2) * error / spread - (math.sqrt(2) * spread).log()


def check_pair(who: str, predictions: Tensor, target: Tensor, width: int | None) -> None:
    """Raise unless predictions `(n, width)`, or `(n,)` for None, match finite `target` `(n,)`."""
    wanted = (len(predictions),) if width is None else (len(predictions), width)
    fits = predictions.shape == wanted and target.shape == wanted[:1]
    if not fits or len(predictions) == 0:
        columns = "(n,)" if width is None else f"(n, {width})"
        raise ValueError(
            f"{who} needs predictions {columns} and targets (n,) with n >= 1, got "
            f"{tuple(predictions.shape)} and {tuple(target.shape)}; choose the column or squeeze."
        )
    bad = int((~target.isfinite()).sum())
    if bad:
        raise ValueError(
            f"{who} needs finite targets, got {bad} of {len(target)} that are not; leave out these "
            "samples."
        )
