"""What is predicted from tokens: heads, losses and metrics of several tasks.

Losses take logits, so that none of them is the logarithm of a rounded probability.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cpic.linalg._inputs import check_choice
from cpic.nn._checks import check_positive

KINDS = ("softmax", "sigmoid", "multilabel")


@dataclass(frozen=True)
class Target:
    """One task.

    Args:
        name: Its name.
        n_classes: Number of classes; 1 for "sigmoid".
        kind: "softmax", one of several classes; "sigmoid", yes or no; "multilabel", yes or no for
            each class.

    Raises:
        ValueError: If the kind is unknown, or the number of classes does not fit.
    """

    name: str
    n_classes: int = 1
    kind: Literal["softmax", "sigmoid", "multilabel"] = "softmax"

    def __post_init__(self) -> None:
        check_choice("Target", "kind", self.kind, KINDS, "choose one of them")
        check_positive("Target", n_classes=self.n_classes)
        if (self.kind == "sigmoid") != (self.n_classes == 1):
            raise ValueError(
                f'Target {self.name!r} needs one class with "sigmoid" and several with others, '
                f"got {self.n_classes} with {self.kind!r}."
            )

    @property
    def metric(self) -> str:
        """Name of the metric of its kind."""
        names = {"softmax": "accuracy", "sigmoid": "auc", "multilabel": "multilabel_accuracy"}
        return names[self.kind]

    def check(self, labels: Tensor) -> None:
        """Raise unless labels `(B,)`, or `(B, n_classes)` of 0 and 1, are valid."""
        wide = self.kind == "multilabel"
        shape = "(B, " + f"{self.n_classes})" if wide else "(B,)"
        top = self.n_classes - 1 if self.kind == "softmax" else 1
        fits = labels.ndim == 1 + wide and (not wide or labels.shape[1] == self.n_classes)
        if not fits or not len(labels) or not bool(((labels >= 0) & (labels <= top)).all()):
            span = f"{labels.min():g} to {labels.max():g}" if labels.numel() else "none"
            raise ValueError(
                f"task {self.name!r} needs labels {shape} from 0 to {top}, got "
                f"{tuple(labels.shape)} from {span}; check the table of labels."
            )


class Heads(nn.ModuleDict):
    """One linear layer for each task, on the token of its number, or on the only one.

    Args:
        targets: The tasks.
        width: Width of the tokens.
        n_tokens: Number of tokens: 1, or one for each task.

    Raises:
        ValueError: If there is no task, two have one name, or the number of tokens does not fit.

    Example:
        >>> heads = Heads([Target("top", 10), Target("multi", 10, "multilabel")], 16, n_tokens=2)
        >>> {name: tuple(x.shape) for name, x in heads(torch.randn(3, 2, 16)).items()}
        {'top': (3, 10), 'multi': (3, 10)}
    """

    def __init__(self, targets: Sequence[Target], width: int, *, n_tokens: int = 1):
        names = [target.name for target in targets]
        if not names or len(set(names)) < len(names) or n_tokens not in (1, len(names)):
            raise ValueError(
                f"Heads need tasks of different names, and one token or one for each, got {names} "
                f"and {n_tokens} tokens."
            )
        super().__init__({one.name: nn.Linear(width, one.n_classes) for one in targets})
        self.targets = tuple(targets)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Logits `(B, n_classes)` by task, of tokens `(B, T, width)`."""
        each = tokens.expand(-1, len(self), -1).unbind(1)
        return {name: layer(one) for (name, layer), one in zip(self.items(), each, strict=True)}

    def loss(self, logits: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> Tensor:
        """Mean of `losses`."""
        return self.losses(logits, labels).mean()

    def losses(self, logits: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> Tensor:
        """`target_loss` of each task, `(T,)`.

        Raises:
            ValueError: If a task has no labels.
        """
        if lacking := [one.name for one in self.targets if one.name not in labels]:
            raise ValueError(
                f"Heads need labels of all tasks, got none of {', '.join(lacking)}; pass a tensor "
                "for each name."
            )
        parts = [target_loss(one, logits[one.name], labels[one.name]) for one in self.targets]
        return torch.stack(parts)


def target_loss(target: Target, logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits `(B, n_classes)`, or that of yes and no, a mean over samples.

    Args:
        target: The task.
        logits: Before softmax or sigmoid.
        labels: Classes `(B,)`, or 0 and 1 `(B,)` for "sigmoid", `(B, n_classes)` for "multilabel".

    Example:
        >>> target_loss(Target("rare", kind="sigmoid"), torch.tensor([[-200.0]]), torch.tensor([1]))
        tensor(200.)
    """
    if target.kind == "softmax":
        return nn.functional.cross_entropy(logits, labels.long())
    wanted = labels.to(logits).view_as(logits)
    return nn.functional.binary_cross_entropy_with_logits(logits, wanted)


def target_metric(target: Target, logits: Tensor, labels: Tensor) -> float:
    """Accuracy; the share of samples with all labels right; or the area under the ROC curve.

    Args:
        target: The task.
        logits: `(n, n_classes)`, of all samples.
        labels: As in `target_loss`.

    Returns:
        The metric, NaN for an area if there is one class only.

    Example:
        >>> rare = Target("rare", kind="sigmoid")
        >>> target_metric(rare, torch.tensor([[0.1], [0.9]]), torch.tensor([0, 1]))
        1.0
    """
    if target.kind == "sigmoid":
        return roc_auc(logits.flatten(), labels.flatten())
    return float(target_hits(target, logits, labels).double().mean())


def target_hits(target: Target, logits: Tensor, labels: Tensor) -> Tensor:
    """Which samples have the right class, or all labels right, bool `(n,)`; not for "sigmoid"."""
    if target.kind == "softmax":
        return logits.argmax(1) == labels
    return ((logits > 0) == labels.bool()).all(1)


def target_chance(target: Target, train: Tensor, labels: Tensor) -> float:
    """The metric of the best constant answer of the training samples, on others."""
    if target.kind == "softmax":
        common = train.long().bincount().argmax()
        return float((labels == common).double().mean())
    if target.kind == "multilabel":
        kinds, counts = train.long().unique(dim=0, return_counts=True)
        return float((labels.long() == kinds[counts.argmax()]).all(1).double().mean())
    return 0.5


def roc_auc(scores: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve: how often a positive sample is above a negative one, ties half.

    Args:
        scores: `(n,)`.
        labels: `(n,)`, of 0 and 1.

    Example:
        >>> roc_auc(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
        0.75
    """
    positive = labels.bool()
    n_positive, n = int(positive.sum()), len(labels)
    if n_positive in (0, n):
        return float("nan")
    _, place, counts = scores.double().unique(return_inverse=True, return_counts=True)
    # The mean rank of equal scores.
    ranks = (counts.cumsum(0).double() - (counts - 1) / 2)[place]
    above = ranks[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * (n - n_positive)))
