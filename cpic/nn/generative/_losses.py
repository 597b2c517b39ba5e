"""Hinge losses of a generator and a discriminator.

Shapes: `K` images.
References: {cite}`lim2017geometric`, {cite}`miyato2018spectral`.
"""

from torch import Tensor
from torch.nn.functional import relu


def hinge_discriminator(real: Tensor, generated: Tensor) -> Tensor:
    """Hinge loss of a discriminator: mean of relu(1 - real) plus mean of relu(1 + generated).

    Args:
        real: Scores `(K,)` of real images.
        generated: Scores of generated images.

    Returns:
        A number, differentiable in both.

    Example:
        >>> float(hinge_discriminator(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])))
        0.75
    """
    return relu(1 - real).mean() + relu(1 + generated).mean()


def hinge_generator(generated: Tensor) -> Tensor:
    """Loss of a generator against a discriminator with a hinge loss: minus the mean score.

    Args:
        generated: Scores `(K,)` of generated images.

    Returns:
        A number, differentiable.

    Example:
        >>> float(hinge_generator(torch.tensor([1.0, 2.0])))
        -1.5
    """
    return -generated.mean()
