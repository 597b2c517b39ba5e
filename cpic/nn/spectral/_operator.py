"""The norm of a convolution as an operator, which the matrix of its kernel bounds only loosely."""

from collections.abc import Sequence

import torch
from torch import Tensor


def convolution_norm(weight: Tensor, size: Sequence[int]) -> Tensor:
    """Largest singular value of a convolution with stride 1 on a periodic grid, by FFT.

    At each frequency the convolution is a matrix of the channels, and its singular values are those
    of all these matrices {cite}`sedghi2019singular`. For a kernel of k positions this norm lies
    between 1 / sqrt(k) and sqrt(k) times the norm of the matrix of the kernel. Differentiable.

    Args:
        weight: Kernel `(c_out, c_in, *kernel)`, without groups.
        size: Positions of the grid along each axis, as many as the kernel has at least.

    Returns:
        The norm, a single number.

    Raises:
        ValueError: If the grid has another number of axes, or is smaller than the kernel.

    Example:
        >>> kernel = torch.ones(1, 1, 3) / 3**0.5  # as a matrix it has norm 1
        >>> round(float(convolution_norm(kernel, (8,))), 4)
        1.7321
    """
    kernel = weight.shape[2:]
    if len(size) != len(kernel) or any(n < k for n, k in zip(size, kernel, strict=True)):
        raise ValueError(
            "convolution_norm needs a grid with the axes of the kernel and at least its size, got "
            f"{tuple(size)} for a weight {tuple(weight.shape)}."
        )
    axes = list(range(2, weight.ndim))
    spectrum = torch.fft.rfftn(weight, s=list(size), dim=axes)
    return torch.linalg.matrix_norm(spectrum.flatten(2).permute(2, 0, 1), 2).amax()
