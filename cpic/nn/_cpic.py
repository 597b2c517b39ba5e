r"""From whole volumes to predictions by a few thousand of their voxels.

    volumes -> cubes -> encoder -> entries -> cross -> trains -> components -> head

References: {cite}`usvyatsov2021cherry`.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from cpic.bottleneck import BOTTLENECKS, bottleneck, half_sweep
from cpic.nn._centred import Centred
from cpic.nn._components import Components
from cpic.nn._entries import Readable, VolumeEntries
from cpic.nn._memory import SetMemory
from cpic.nn._together import all_names, all_rows, all_sets
from cpic.tt import IndexSets, Quantics, TensorTrain, interpolate
from cpic.tt._solvers import Solver


class Counts(NamedTuple):
    """Of all calls since `reset_counts`: volumes seen, entries asked for, positions encoded."""

    volumes: int
    asked: int
    encoded: int


class CPIC(nn.Module):
    """Cubes of voxels to vectors, vectors to trains, trains to features, features to predictions.

    The published model {cite}`usvyatsov2021cherry`. In training mode each call makes one
    half-sweep of cross-interpolation from the index sets remembered under the names of the
    volumes, with gradient. In evaluation mode the sets are found in `looks` half-sweeps from those
    of `starts` other volumes, and nothing is changed: a prediction depends on the volume and the
    state of the model alone. Differentiable in the parameters of encoder and head.

    With several processes, each with its share of a batch, the step is that of one process with
    the whole batch, but for noise in the head, if the loss is the mean over all samples.

    `state_dict` holds the parameters, the index sets of every name, the basis and the spread of
    the features: a run that is resumed takes the same steps.

    Args:
        encoder: Maps cubes to vectors, with `n_dims`, `in_channels` and `receptive_field`; None
            takes the voxels themselves.
        head: Maps features `(B, n_features)`, and tabular ones if there are any, to predictions.
        shape: Spatial sizes of the volumes.
        contrasts: Channels of the volumes.
        rank: Bound on the ranks of the trains.
        n_features: Components the head sees; None is `rank`.
        quantics: Split the axes into bits; False keeps them whole (plain tensor train).
        order: Order of the bits, as in `cpic.tt.Quantics`.
        by: Name of the bottleneck, one of `cpic.bottleneck.BOTTLENECKS`.
        looks: Half-sweeps without gradient that find the sets of a volume never seen.
        starts: Remembered volumes in whose places the first of these looks, in evaluation mode. A
            lesion that no start is near is missed; with more of them that is rare, and a
            prediction depends less on which they are.
        select: Visits of a volume from one choice of its sets to the next; in between its train is
            interpolated on those it has.
        centre: Take from each vector that of an empty cube, so that empty space is zero. Without
            it nearly all of the norm of a train, and so of its features, is a constant.
        padding: As in `VolumeEntries`.
        chunk: As in `VolumeEntries`: with it, memory does not grow with the batch.
        solver: How cores are solved for, as in `cpic.tt.interpolate`.
        components: Options of the features: `follow`, `refresh`, `forgetting`, `gradient`,
            `max_rank`, `momentum`.
        generator: Draws the first index sets.

    Raises:
        ValueError: If an option does not fit, and, when called, if the volumes do not, a first
            batch has fewer samples than features, or there is nothing trained to evaluate.

    Example:
        >>> from cpic.data import ArrayVolume
        >>> from cpic.nn import CubeEncoder, TwoHeadRegressor
        >>> generator = torch.Generator().manual_seed(0)
        >>> volumes = [ArrayVolume(torch.rand(16, 16, 16, generator=generator)) for _ in range(4)]
        >>> model = CPIC(CubeEncoder(4), TwoHeadRegressor(3), shape=(16, 16, 16), rank=3,
        ...              generator=generator)
        >>> model(volumes, ["a", "b", "c", "d"]).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        encoder: nn.Module | None,
        head: nn.Module,
        *,
        shape: Sequence[int],
        contrasts: int = 1,
        rank: int = 10,
        n_features: int | None = None,
        quantics: bool = True,
        order: Literal["sequential", "interleaved"] = "sequential",
        by: str = "cross",
        looks: int = 4,
        starts: int = 4,
        select: int = 1,
        centre: bool = True,
        padding: Literal["zero", "encode"] = "zero",
        chunk: int | None = None,
        solver: Solver = "solve",
        components: dict[str, Any] | None = None,
        generator: torch.Generator,
    ):
        super().__init__()
        n_dims = contrasts if encoder is None else int(encoder.n_dims)  # type: ignore[arg-type]
        if by not in BOTTLENECKS or min(rank, looks, starts, select) < 1:
            raise ValueError(
                f"CPIC needs `by` out of {', '.join(BOTTLENECKS)} and `rank`, `looks`, `starts` "
                f"and `select` of at least 1, got {by!r}, {rank}, {looks}, {starts} and {select}."
            )
        self.encoder, self.head = encoder, head
        self.shape, self.contrasts, self.rank, self.by = tuple(shape), contrasts, rank, by
        self.looks, self.starts, self.select = looks, starts, select
        self.centre = centre
        self.solver: Solver = solver
        self.padding: Literal["zero", "encode"] = padding
        self.chunk, self.generator = chunk, generator
        self.grid = Quantics(self.shape, channels=n_dims, order=order) if quantics else None
        plain = self.shape if n_dims == 1 else (*self.shape, n_dims)
        self.sizes = plain if self.grid is None else self.grid.sizes
        self.memory = SetMemory(self.sizes, rank, generator=generator)
        options = {"max_rank": 2 * rank, **(components or {})}
        self.components = Components(n_features or rank, **options)
        self.reset_counts()

    def forward(
        self,
        volumes: Sequence[Readable],
        names: Sequence[str],
        *,
        rows: Tensor | None = None,
        tabular: Tensor | None = None,
    ) -> Tensor:
        """Predictions of B samples of K volumes.

        Args:
            volumes: K volumes of the stated shape.
            names: A name for each, under which its index sets are remembered.
            rows: Which volume each sample belongs to, int64 `(B,)`; None: one sample a volume.
            tabular: What else the head knows of the samples, `(B, t)`.

        Returns:
            What the head returns for features `(B, n_features)`.
        """
        features = self.components(self.trains(volumes, names))
        features = features.to(next(self.head.parameters(), features))
        if rows is not None:
            features = features[rows.to(features.device)]
        given = [features] if tabular is None else [features, tabular.to(features)]
        if not self.training:
            return self.head(*given)
        # The head sees the batch of all processes, for its batch norm.
        whole = [all_rows(part) for part in given]
        return self.head(*(part for part, _ in whole))[whole[0][1]]

    def trains(self, volumes: Sequence[Readable], names: Sequence[str]) -> TensorTrain:
        """Trains of K encoded volumes, with gradient."""
        self._check(volumes, names)
        encoder = self.encoder
        entries = VolumeEntries(
            volumes,
            Centred(encoder) if self.centre and encoder is not None else encoder,
            self.grid,
            padding=self.padding,
            chunk=self.chunk,
            remember=self.by == "cross",
        )
        trains = self._cross(entries, names) if self.by == "cross" else self._dense(entries)
        past = self.counts
        self.counts = Counts(
            past.volumes + len(volumes), past.asked + entries.asked, past.encoded + entries.encoded
        )
        return trains

    def reset_counts(self) -> None:
        """Begin to count anew."""
        self.counts = Counts(0, 0, 0)

    def _cross(self, entries: VolumeEntries, names: Sequence[str]) -> TensorTrain:
        if not self.training:
            # Not from the sets of its name: what is predicted shall not depend on who was seen.
            begun = self.memory.begin(len(names), n_starts=self.starts)
            found = self._look(entries, begun, self.looks)
            return half_sweep(entries, found, solver=self.solver).train
        # Processes choose alike, and remember the sets of all.
        everyone = all_names(names)
        sets, visits = self.memory.get(names), self.memory.visits(everyone)
        towards = self.memory.towards(everyone)
        fresh = bool((visits == 0).any())
        if fresh:
            sets = self._look(entries, sets, self.looks)
        if fresh or bool((visits % self.select == 0).any()):
            step = half_sweep(entries, sets, towards=towards, solver=self.solver)
            self.memory.put(*all_sets(names, step.sets))
            return step.train
        self.memory.put(*all_sets(names, sets))
        return interpolate(entries, sets, solver=self.solver)

    @torch.no_grad()
    def _look(self, entries: VolumeEntries, sets: IndexSets, times: int) -> IndexSets:
        """Sets after some half-sweeps, of which the last goes left; begun wide, they end narrow."""
        for k in reversed(range(times)):
            towards = "right" if k % 2 else "left"
            sets = half_sweep(entries, sets, towards=towards, ranks=self.memory.ranks).sets
        return sets

    def _dense(self, entries: VolumeEntries) -> TensorTrain:
        made = bottleneck(
            self.by,
            self.sizes,
            rank=self.rank,
            n_trains=len(entries.volumes),
            generator=self.generator,
        )
        return made(entries)

    def _check(self, volumes: Sequence[Readable], names: Sequence[str]) -> None:
        if len(volumes) != len(names) or len(set(names)) != len(names) or not names:
            raise ValueError(
                f"CPIC needs one name for each volume, all different, got {len(volumes)} volumes "
                f"and {len(set(names))} different names of {len(names)}; samples of one volume "
                "share it by `rows`."
            )
        for name, volume in zip(names, volumes, strict=True):
            if (tuple(volume.shape), volume.channels) != (self.shape, self.contrasts):
                raise ValueError(
                    f"CPIC needs volumes of shape {self.shape} with {self.contrasts} channels, got "
                    f"{tuple(volume.shape)} with {volume.channels} for {name}; prepare all of "
                    "them on one grid."
                )
