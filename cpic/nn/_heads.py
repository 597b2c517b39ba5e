r"""Small networks that map features of trains to predictions.

Shapes: `K` samples, `r` features, `t` tabular features.
References: {cite}`usvyatsov2021cherry`.
"""

import torch
from torch import Tensor, nn

from cpic.nn._checks import check_batch_norm, check_positive, check_rows
from cpic.nn._dense import dense


class TwoHeadRegressor(nn.Module):
    """Layers of width 100 and 20 on features, with an additional branch for tabular features.

    The published regressors {cite}`usvyatsov2021cherry`: for survival `batch_norm=True` and no
    tabular features, with the second of three outputs used; for lung function `batch_norm=False`
    and `n_tabular` 1 or 8. The tabular branch has layers of width 500 and 100; noise is added to
    its output in training mode only.

    Args:
        n_features: Number of features of a train, the rank of the projection.
        n_tabular: Number of tabular features, 0 for none.
        batch_norm: Whether batch norm follows the layers of width 100 and 20.
        layer_norm: Whether layer norm follows them in its place. It treats each sample alone: a
            prediction then depends neither on the batch in training nor on running statistics.
            But it divides by the size of the hidden values, so that an amount among the features,
            such as a volume, hardly reaches the next layer.
        n_outputs: Outputs per sample.
        noise: Standard deviation of the noise.
        generator: Generator of the noise; the global one if None, as in dropout.

    Raises:
        ValueError: If a size is out of range, and, when called, if the features have another shape,
            tabular features are missing or too many, or batch norm gets a single sample.

    Example:
        >>> head = TwoHeadRegressor(10)
        >>> head(torch.rand(21, 10)).shape
        torch.Size([21, 3])
        >>> sum(p.numel() for p in head.parameters())
        3423
    """

    def __init__(
        self,
        n_features: int,
        *,
        n_tabular: int = 0,
        batch_norm: bool = True,
        layer_norm: bool = False,
        n_outputs: int = 3,
        noise: float = 0.2,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        check_positive("TwoHeadRegressor", n_features=n_features, n_outputs=n_outputs)
        if n_tabular < 0 or noise < 0:
            raise ValueError(
                f"TwoHeadRegressor needs `n_tabular >= 0` and `noise >= 0`, got {n_tabular} and "
                f"{noise}; 0 leaves out the branch or the noise."
            )
        self.n_features, self.n_tabular = n_features, n_tabular
        self.batch_norm = batch_norm and not layer_norm
        self.noise, self.generator = noise, generator
        self.tabular = None
        if n_tabular:
            self.tabular = nn.Sequential(*dense(n_tabular, 500, 100, batch_norm=False))
        width = n_features + (100 if n_tabular else 0)
        self.layers = nn.Sequential(
            *dense(
                *(width, 100, 20),
                n_outputs=n_outputs,
                batch_norm=self.batch_norm,
                layer_norm=layer_norm,
            )
        )

    def forward(self, features: Tensor, tabular: Tensor | None = None) -> Tensor:
        """Predictions `(K, n_outputs)` from features `(K, r)` and tabular ones `(K, t)`."""
        check_rows(self, "features", features, self.n_features)
        if (tabular is None) != (self.tabular is None):
            raise ValueError(
                f"TwoHeadRegressor needs {self.n_tabular} tabular features, got "
                f"{'none' if tabular is None else tuple(tabular.shape)}; pass "
                "`head(features, tabular)`, or set `n_tabular`."
            )
        if self.batch_norm:
            check_batch_norm(self, len(features))
        if self.tabular is not None and tabular is not None:
            check_rows(self, "tabular features", tabular, self.n_tabular)
            branch = self.tabular(tabular)
            if self.training and self.noise:
                branch = branch + self.noise * self._normal(branch)
            features = torch.cat([features, branch], 1)
        return self.layers(features)

    def _normal(self, like: Tensor) -> Tensor:
        if self.generator is None:
            return torch.randn_like(like)
        place = self.generator.device
        drawn = torch.randn(like.shape, generator=self.generator, dtype=like.dtype, device=place)
        return drawn.to(like.device)


class QuantileHead(nn.Module):
    """Three quantiles of a prediction, by the regressor without batch norm.

    The published head for lung function, with outputs for the quantiles 0.2, 0.5 and 0.8
    {cite}`usvyatsov2021cherry`. The published head does not keep them in order; with `ordered=True`
    the outer ones are the middle one minus and plus a positive number (softplus), with as many
    parameters.

    Args:
        n_features: Number of features of a train.
        n_tabular: Number of tabular features, 0 for none.
        ordered: Whether to prevent quantiles from crossing.
        layer_norm: As in `TwoHeadRegressor`.
        noise: As in `TwoHeadRegressor`.
        generator: As in `TwoHeadRegressor`.

    Example:
        >>> head = QuantileHead(10, ordered=True)
        >>> low, middle, high = head(torch.rand(4, 10), torch.rand(4, 1)).unbind(1)
        >>> bool((low <= middle).all() and (middle <= high).all())
        True
    """

    def __init__(
        self,
        n_features: int,
        *,
        n_tabular: int = 1,
        ordered: bool = False,
        layer_norm: bool = False,
        noise: float = 0.2,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.ordered = ordered
        self.regressor = TwoHeadRegressor(
            n_features,
            n_tabular=n_tabular,
            batch_norm=False,
            layer_norm=layer_norm,
            noise=noise,
            generator=generator,
        )

    def forward(self, features: Tensor, tabular: Tensor | None = None) -> Tensor:
        """Quantiles `(K, 3)` from features `(K, r)` and tabular ones `(K, t)`."""
        raw = self.regressor(features, tabular)
        if not self.ordered:
            return raw
        below, middle, above = raw.unbind(1)
        softplus = nn.functional.softplus
        return torch.stack([middle - softplus(below), middle, middle + softplus(above)], 1)


class Classifier(nn.Module):
    """Classification logits: layers of width 2048, 1024 and 512 with batch norm.

    Args:
        n_features: Number of features of a train.
        n_classes: Number of classes; the logits are for `torch.nn.functional.cross_entropy`.

    Raises:
        ValueError: If a size is below 1, and, when called, if the features have another shape, or
            batch norm gets a single sample.

    Example:
        >>> Classifier(10, 4)(torch.rand(5, 10)).shape
        torch.Size([5, 4])
    """

    def __init__(self, n_features: int, n_classes: int):
        super().__init__()
        check_positive("Classifier", n_features=n_features, n_classes=n_classes)
        self.n_features = n_features
        self.layers = nn.Sequential(*dense(n_features, 2048, 1024, 512, n_outputs=n_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Logits `(K, n_classes)` from features `(K, r)`."""
        check_rows(self, "features", features, self.n_features)
        check_batch_norm(self, len(features))
        return self.layers(features)
