r"""Compare two sets of labeled positions, class by class.

The Dice coefficient of a class is 2 m / (p + t), where p positions are predicted to be of the
class, t positions are, and m are both. It is a ratio of sums over all positions, not a mean of
ratios of parts, so the counts are accumulated.

Shapes: `n` positions, `c` classes.
References: {cite}`menze2015multimodal`.
"""

import torch
from torch import Tensor


class Dice:
    """Dice coefficient of every class, over all added positions {cite}`menze2015multimodal`.

    Counts of several processes are added: `a + b`.

    Args:
        n_classes: Number of classes c, at least 2.

    Raises:
        ValueError: If there are fewer than two classes, and, in `add`, if shapes do not match or a
            class is unknown.

    Example:
        >>> overlap = Dice(3)
        >>> overlap.add(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1]))
        >>> overlap.value  # nothing is of class 2
        tensor([0.6667, 0.8000,    nan], dtype=torch.float64)
    """

    def __init__(self, n_classes: int):
        if isinstance(n_classes, bool) or not isinstance(n_classes, int) or n_classes < 2:
            raise ValueError(f"Dice needs `n_classes >= 2`, an integer, got {n_classes!r}.")
        self.n_classes = n_classes
        self.counts = torch.zeros(3, n_classes, dtype=torch.int64, device="cpu")

    def add(self, predictions: Tensor, target: Tensor) -> None:
        """Count positions.

        Args:
            predictions: Classes, integers of the shape of `target`, or scores with a last axis of c
                classes, of which the largest counts.
            target: True classes, integers from 0 to c - 1, of any shape.
        """
        if predictions.is_floating_point():
            self._check(predictions, target, (*target.shape, self.n_classes))
            predictions = predictions.detach().argmax(-1)
        else:
            self._check(predictions, target, tuple(target.shape))
        one, other = predictions.flatten().long(), target.flatten().long()
        for name, classes in (("predictions", one), ("target", other)):
            if len(classes) and (int(classes.min()) < 0 or int(classes.max()) >= self.n_classes):
                raise ValueError(
                    f"Dice needs classes 0 to {self.n_classes - 1} in {name}, got "
                    f"{int(classes.min())} to {int(classes.max())}; map labels to classes first."
                )
        for row, part in enumerate((one[one == other], one, other)):
            self.counts[row] += part.bincount(minlength=self.n_classes).cpu()

    @property
    def value(self) -> Tensor:
        """Coefficients `(c,)`, float64; NaN for a class that occurs in neither."""
        both, predicted, true = self.counts.double()
        return 2 * both / (predicted + true)

    def __add__(self, other: "Dice") -> "Dice":
        result = Dice(self.n_classes)
        result.counts = self.counts + other.counts
        return result

    def __repr__(self) -> str:
        values = [round(value, 4) for value in self.value.tolist()]
        return f"Dice({values}, {int(self.counts[1].sum())} positions)"

    def _check(self, predictions: Tensor, target: Tensor, wanted: tuple[int, ...]) -> None:
        if tuple(predictions.shape) != wanted or target.is_floating_point():
            raise ValueError(
                f"Dice needs integer targets and predictions of the same shape, or scores with "
                f"{self.n_classes} classes in the last axis, got {target.dtype} "
                f"{tuple(target.shape)} and {predictions.dtype} {tuple(predictions.shape)}."
            )


def dice(predictions: Tensor, target: Tensor, *, n_classes: int) -> Tensor:
    """Dice coefficient of every class over all positions {cite}`menze2015multimodal`.

    Not differentiable, since classes are counted.

    Args:
        predictions: Classes, integers of the shape of `target`, or scores with a last axis of
            `n_classes`, of which the largest counts.
        target: True classes, integers from 0 to `n_classes - 1`, of any shape.
        n_classes: Number of classes c.

    Returns:
        Coefficients `(c,)`, float64 on the CPU; NaN for a class that occurs in neither.

    Raises:
        ValueError: If shapes do not match or a class is unknown.

    Example:
        >>> dice(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1]), n_classes=2)
        tensor([0.6667, 0.8000], dtype=torch.float64)
    """
    overlap = Dice(n_classes)
    overlap.add(predictions, target)
    return overlap.value
