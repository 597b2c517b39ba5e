r"""From whole volumes to predictions through a few thousand of their voxels.

    volumes -> cubes -> encoder -> entries -> cross -> trains -> components -> head

References: {cite}`usvyatsov2021cherry`.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cpic._renamed import regrouped
from cpic.bottleneck import bottleneck, half_sweep
from cpic.data._fitting import fitting
from cpic.nn._centered import Centered
from cpic.nn._checks import check_cohort
from cpic.nn._components import Components
from cpic.nn._counts import Counts
from cpic.nn._distributed import all_names, all_rows, all_sets
from cpic.nn._entries import VolumeEntries, sizes_of
from cpic.nn._features import BASED, Encoded, Pooled
from cpic.nn._learned import Learned
from cpic.nn._memory import SetMemory, sought
from cpic.nn._options import Positions, Reading, Search, grouped, with_old_fields
from cpic.nn._positions import beyond, encode, matched, sites
from cpic.nn._readable import Readable
from cpic.tt import Quantics, TensorTrain, interpolate


@with_old_fields
class CPIC(nn.Module):
    """Cubes of voxels to vectors, vectors to trains, trains to features, features to predictions.

    The published model {eq}`eq-cpic-model` {cite}`usvyatsov2021cherry`. In training mode each call
    makes one half-sweep of cross-interpolation from the index sets stored under the names of the
    volumes, with gradient. In evaluation mode the sets are found by separate half-sweeps that start
    from those of other volumes, and no state changes: a prediction depends only on the volume and
    the state of the model. Many volumes of stores are then processed in groups whose decoded chunks
    fit the cache that they share. Differentiable in the parameters of encoder and head.

    With several processes, each with its share of a batch, a step equals that of one process with
    the whole batch, except for noise in the head, if the loss is the mean over all samples.

    `state_dict` holds the parameters, the index sets of every name, the basis and the spread of the
    features: a resumed run takes the same steps.

    Args:
        encoder: Maps cubes to vectors, with `n_dims`, `in_channels` and `receptive_field`; None
            uses the voxels themselves.
        head: Maps features `(B, n_features)`, and tabular ones if there are any, to predictions.
        shape: Spatial sizes of the volumes.
        contrasts: Channels of the volumes.
        search: Ranks of the trains, and options of the search.
        positions: Where volumes are read: options, or the name of a chooser in `Positions`.
        features: Names of features, which the head gets side by side: `"components"`, those of
            the published model; `"learned"`, in a basis that is a parameter, begun at these;
            `"moments"`, the mean, first and second moments of each channel; `"maximum"`, its
            largest value among the vectors read; `"attention"`, a mean of the vectors with learned
            weights; `"covariance"`, the square root of their covariance. `count_features` has
            their number.
        components: Computes features of trains; by default as many as the rank. If `max_rank` of
            its basis is not set, it is twice the rank of the trains. Learned features are as many.
        reading: How volumes are read and encoded.
        generator: Draws the first index sets.

    Raises:
        ValueError: If an option is invalid, and, when called, if the volumes have another shape, a
            first batch has fewer samples than features, or the model to evaluate is not trained.

    Example:
        >>> from cpic.data import ArrayVolume
        >>> from cpic.nn import CubeEncoder, Search, TwoHeadRegressor
        >>> generator = torch.Generator().manual_seed(0)
        >>> volumes = [ArrayVolume(torch.rand(16, 16, 16, generator=generator)) for _ in range(4)]
        >>> model = CPIC(CubeEncoder(4), TwoHeadRegressor(3), shape=(16, 16, 16),
        ...              search=Search(rank=3), generator=generator)
        >>> model(volumes, ["a", "b", "c", "d"]).shape
        torch.Size([4, 3])
    """

    @regrouped(grouped)
    def __init__(
        self,
        encoder: nn.Module | None,
        head: nn.Module,
        *,
        shape: Sequence[int],
        contrasts: int = 1,
        search: Search | None = None,
        positions: Positions | str = "cross",
        features: Sequence[str] = ("components",),
        components: Components | None = None,
        reading: Reading | None = None,
        generator: torch.Generator,
    ):
        super().__init__()
        self.search, self.reading = search or Search(), reading or Reading()
        rank, order = self.search.rank, self.search.order
        n_dims = contrasts if encoder is None else int(encoder.n_dims)  # type: ignore[arg-type]
        self.encoder, self.head = encoder, head
        self.shape, self.contrasts, self.generator = tuple(shape), contrasts, generator
        quantics = self.search.quantics
        self.grid = Quantics(self.shape, channels=n_dims, order=order) if quantics else None
        self.sizes = sizes_of(self.shape, n_dims, self.grid)
        self.memory = SetMemory(self.sizes, rank, generator=generator)
        self.positions, self.features = matched(positions, features)
        self.components = components or Components(rank)
        if self.components.max_rank is None:
            self.components.max_rank = 2 * rank
        if "learned" in self.features:
            sizes = sites(self.positions, self.shape, n_dims, self.sizes)
            self.learned = Learned(self.components.rank, sizes, max_rank=self.components.max_rank)
        others = [kind for kind in self.features if kind not in BASED]
        self.pooled = Pooled(others, self.shape, n_dims, self.grid) if others else None
        self._misfit: Tensor | None = None
        self.reset_counts()

    def forward(
        self,
        volumes: Sequence[Readable],
        names: Sequence[str],
        *,
        rows: Tensor | None = None,
        tabular: Tensor | None = None,
    ) -> Tensor:
        """Predictions for B samples of K volumes.

        Args:
            volumes: K volumes of the given shape.
            names: A name for each volume, under which its index sets are stored.
            rows: Index of the volume of each sample, int64 `(B,)`; None: one sample per volume.
            tabular: Further features of the samples, `(B, t)`.

        Returns:
            The output of the head for features `(B, n_features)`.
        """
        features = self.features_of(volumes, names)
        features = features.to(next(self.head.parameters(), features))
        if rows is not None:
            features = features[rows.to(features.device)]
        given = [features] if tabular is None else [features, tabular.to(features)]
        if not self.training:
            return self.head(*given)
        # The head gets the batch of all processes, for its batch norm.
        whole = [all_rows(part) for part in given]
        return self.head(*(part for part, _ in whole))[whole[0][1]]

    def features_of(
        self,
        volumes: Sequence[Readable],
        names: Sequence[str],
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Features `(K, r)` of K volumes, with gradient; in training mode statistics change.

        With a generator, positions and first index sets are drawn in evaluation mode, too.
        """
        # A draw is for all volumes together.
        if self.training or generator is not None:
            return self._features(volumes, names, generator)
        check_cohort(volumes, names, self.shape, self.contrasts)
        parts = [(volumes[k], names[k]) for k in fitting(volumes)]
        runs = ((self._features(*part), self._misfit) for part in parts)
        found, misfits = zip(*runs, strict=True)
        self._misfit = None if misfits[0] is None else torch.cat(misfits)
        return torch.cat(found)

    def _features(self, volumes: Sequence, names: Sequence[str], generator: Any = None) -> Tensor:
        encoded = self.encode(volumes, names, generator=generator)
        given = encoded.trains, encoded.indices, encoded.beyond(math.prod(self.shape))
        found = [getattr(self, kind)(*given) for kind in BASED if kind in self.features]
        if self.pooled is not None:
            found.append(self.pooled(encoded, len(volumes)))
        return torch.cat([part.to(found[0]) for part in found], 1)

    def residual(self) -> Tensor:
        """How much the trains of the last call miss, a term for the loss, from 0.

        The squared difference between encoded volumes and trains at the positions of the
        correction, relative to the squared encoded volumes, in the mean over the volumes. The
        positions are read anyway. With gradient: an encoder learns to be of low rank.

        Raises:
            ValueError: If the last call had no correction.

        Example:
            >>> loss = loss + 0.1 * model.residual()  # doctest: +SKIP
        """
        if self._misfit is None:
            raise ValueError(
                "CPIC needs a call with a correction before `residual`, got "
                f"{self.positions!r}; use `Positions(correction=500)` and call the model."
            )
        return self._misfit.mean()

    def encode(
        self,
        volumes: Sequence[Readable],
        names: Sequence[str],
        *,
        generator: torch.Generator | None = None,
    ) -> Encoded:
        """K encoded volumes as far as they are read, with gradient; see `features_of`."""
        check_cohort(volumes, names, self.shape, self.contrasts)
        draw = self.generator if self.training else generator
        trains = points = indices = misfit = None
        if self.positions.by != "cross":
            entries = self._entries(volumes, remember=False)
            encoded = encode(entries, self.positions, draw, self.memory.device, self.pooled)
        else:
            entries, trains = self._trains(volumes, names, generator)
            if self.positions.correction:
                count = self.positions.correction
                points, indices, misfit = beyond(entries, trains, count, draw)
            read = entries.read() if self.pooled is not None else (torch.empty(0), torch.empty(0))
            encoded = Encoded(trains, points, indices, read, misfit)
        self._misfit = misfit
        self.counts = self.counts.plus(entries)
        return encoded

    def trains(self, volumes: Sequence[Readable], names: Sequence[str]) -> TensorTrain:
        """Trains of K encoded volumes by the cross, with gradient."""
        check_cohort(volumes, names, self.shape, self.contrasts)
        entries, trains = self._trains(volumes, names)
        self.counts = self.counts.plus(entries)
        return trains

    def _trains(
        self, volumes: Sequence[Readable], names: Sequence[str], generator: Any = None
    ) -> tuple[VolumeEntries, TensorTrain]:
        by_cross = self.search.by == "cross"
        entries = self._entries(volumes, remember=by_cross or self.pooled is not None)
        if not by_cross:
            entries.mark()
            return entries, self._dense(entries)
        cross = self._cross if self.training else self._searched
        return entries, cross(entries, names, generator)

    def _entries(self, volumes: Sequence[Readable], *, remember: bool) -> VolumeEntries:
        encoder, reading = self.encoder, self.reading
        if reading.centered and encoder is not None:
            encoder = Centered(encoder, once=reading.chunk is None)
        return VolumeEntries(
            volumes,
            encoder,
            self.grid,
            padding=reading.padding,
            chunk=reading.chunk,
            remember=remember,
        )

    def reset_counts(self) -> None:
        """Set the counts to zero."""
        self.counts = Counts()

    def _searched(
        self, entries: VolumeEntries, names: Sequence[str], generator: torch.Generator | None
    ) -> TensorTrain:
        """Trains by half-sweeps that start from the sets of other volumes, or from random ones."""
        # Not from the sets of its name: a prediction must not depend on which volumes were seen.
        if generator is None:
            sets = self.memory.begin(len(names), n_warm_starts=self.search.n_warm_starts)
        else:
            sets = self.memory.random(len(names), generator)
        sets = sought(entries, sets, self.memory.ranks, self.search.n_sweeps)
        entries.mark()
        return half_sweep(entries, sets, solver=self.search.solver).train

    def _cross(
        self, entries: VolumeEntries, names: Sequence[str], generator: torch.Generator | None
    ) -> TensorTrain:
        """Trains by one half-sweep from the stored sets, which are replaced."""
        search = self.search
        # All processes select the same, and store the sets of all.
        everyone = all_names(names)
        sets, visits = self.memory.get(names), self.memory.visits(everyone)
        towards = self.memory.towards(everyone)
        fresh = bool((visits == 0).any())
        if fresh:
            sets = sought(entries, sets, self.memory.ranks, self.search.n_sweeps)
        entries.mark()
        if fresh or bool((visits % search.select == 0).any()):
            train, sets, _ = half_sweep(entries, sets, towards=towards, solver=search.solver)
        else:
            train = interpolate(entries, sets, solver=search.solver)
        self.memory.put(*all_sets(names, sets))
        return train

    def _dense(self, entries: VolumeEntries) -> TensorTrain:
        kind = {"rank": self.search.rank, "n_trains": len(entries.volumes)}
        made = bottleneck(self.search.by, self.sizes, **kind, generator=self.generator)
        return made.to(self.memory.device)(entries)

    def __getstate__(self) -> dict[str, Any]:
        # What carries a gradient cannot be copied.
        return {**self.__dict__, "_misfit": None}
