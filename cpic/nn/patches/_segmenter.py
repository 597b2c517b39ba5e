r"""Classify positions from latent trains.

Shapes: `K` volumes, `n` positions, `D` axes, `c` classes.
References: {cite}`usvyatsov2021cherry`, {cite}`menze2015multimodal`.
"""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import cross_entropy

from cpic.nn._readable import Readable
from cpic.nn.patches._model import PatchModel
from cpic.tt import TensorTrain


class Segmenter(PatchModel):
    """Predict the class of every position of a volume from its latent train.

    Reading is as in the published autoencoder {cite}`usvyatsov2021cherry`; the decoder returns one
    score per class. Train it at positions of `BalancedPositions`, and evaluate it by
    `cpic.nn.metrics.Dice`.

    Takes the arguments of `PatchModel`; the decoder has one output per class.

    Example:
        >>> from cpic.data import ArrayVolume
        >>> from cpic.nn import CubeEncoder, Search
        >>> from cpic.nn.patches import BalancedPositions, PatchDecoder
        >>> generator = torch.Generator().manual_seed(0)
        >>> scan = torch.rand(16, 16, 16, generator=generator)
        >>> seg = ArrayVolume(4 * (scan > 0.9).byte())
        >>> where = BalancedPositions([seg], generator=generator)
        >>> model = Segmenter(CubeEncoder(4), PatchDecoder(4, n_dims=4, width=3),
        ...                   shape=(16, 16, 16), search=Search(rank=4),
        ...                   generator=generator)
        >>> positions, classes = where.draw(torch.tensor([0]), 100, generator=generator)
        >>> model.loss([ArrayVolume(scan)], ["a"], positions, classes).backward()
    """

    def _check_decoder(self) -> None:
        if self.decoder.n_outputs < 2:
            raise ValueError(
                "Segmenter needs a decoder with an output for each of two or more classes, got "
                f"{self.decoder.n_outputs}; set its `n_outputs`."
            )

    def loss(
        self,
        volumes: Sequence[Readable],
        names: Sequence[str],
        positions: Tensor,
        classes: Tensor,
    ) -> Tensor:
        """Cross-entropy, averaged over the positions.

        Args:
            volumes: K volumes.
            names: A name for each, as in `compress`.
            positions: Int64 `(K, n, D)`.
            classes: True classes at the positions, int64 `(K, n)`.

        Returns:
            A scalar, with gradient.
        """
        n_classes = self.decoder.n_outputs
        if classes.shape != positions.shape[:2] or classes.is_floating_point():
            raise ValueError(
                f"Segmenter needs integer classes of shape {tuple(positions.shape[:2])}, one for "
                f"each position, got {classes.dtype} of {tuple(classes.shape)}; see "
                "`BalancedPositions`."
            )
        if classes.numel() and not 0 <= int(classes.min()) <= int(classes.max()) < n_classes:
            raise ValueError(
                f"Segmenter needs classes 0 to {n_classes - 1}, got {int(classes.min())} to "
                f"{int(classes.max())}; map labels by `class_of`, or make a decoder with more "
                "outputs."
            )
        scores = self(volumes, names, positions)
        return cross_entropy(scores.flatten(0, 1), classes.flatten().to(scores.device))

    def classify(self, trains: TensorTrain, positions: Tensor, *, batch: int = 2**13) -> Tensor:
        """Classes at any positions, without gradient, in evaluation mode in any case.

        Args:
            trains: K latent trains, from `compress`.
            positions: Int64 `(K, n, D)`.
            batch: Positions decoded at once.

        Returns:
            Classes, int64 `(K, n)`.
        """
        return self.decode_all(trains, positions, batch=batch).argmax(-1)

    def slice(self, trains: TensorTrain, *, axis: int, at: int, batch: int = 2**13) -> Tensor:
        """Classes `(K, *plane)` of the slice at coordinate `at` along `axis`."""
        return self.plane(trains, axis, at, batch).argmax(-1)
