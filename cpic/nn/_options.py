"""Options of a model by subject: the search for trains, and the reading of volumes."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

from cpic._renamed import field
from cpic.bottleneck import BOTTLENECKS
from cpic.nn._checks import check_positive, check_reading
from cpic.nn._components import Components
from cpic.tt._solvers import Solver

_T = TypeVar("_T")
POSITIONS = ("cross", "grid", "jittered", "low-discrepancy", "random", "grid+peaks", "attended")


@dataclass(frozen=True, kw_only=True)
class Search:
    """Options of the search for the trains of encoded volumes.

    Args:
        rank: Upper bound on the ranks of the trains.
        n_sweeps: Half-sweeps without gradient that find the sets of a new volume. Two suffice from
            the sets of stored volumes; from random sets four find better ones.
        n_warm_starts: Number of stored volumes whose sets start the first of these half-sweeps, in
            evaluation mode. A lesion far from all of them is missed; with more of them this is
            rare, and a prediction depends less on which volumes they are.
        select: Number of visits of a volume between selections of its sets; at the other visits its
            train is interpolated on the current sets.
        by: Name of the bottleneck, one of `cpic.bottleneck.BOTTLENECKS`.
        quantics: Split the axes into bits; False keeps them whole (plain tensor train).
        order: Order of the bits, as in `cpic.tt.Quantics`.
        solver: Solver for the cores, as in `cpic.tt.interpolate`.

    Raises:
        ValueError: If a number is below 1, or the bottleneck is unknown.

    Example:
        >>> Search(rank=3).n_sweeps
        2
    """

    rank: int = 10
    n_sweeps: int = 2
    n_warm_starts: int = 4
    select: int = 1
    by: str = "cross"
    quantics: bool = True
    order: Literal["sequential", "interleaved"] = "sequential"
    solver: Solver = "solve"

    def __post_init__(self) -> None:
        names = ("rank", "n_sweeps", "n_warm_starts", "select")
        check_positive("Search", **{name: getattr(self, name) for name in names})
        if self.by not in BOTTLENECKS:
            raise ValueError(f"Search needs `by` out of {', '.join(BOTTLENECKS)}, got {self.by!r}.")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Options for reading and encoding volumes.

    Args:
        centered: Subtract the vector of an empty cube from each vector, so that empty space is
            zero. Otherwise nearly all of the norm of a train, and thus of its features, is a
            constant.
        padding: As in `VolumeEntries`.
        chunk: As in `VolumeEntries`; if set, memory does not grow with the batch.

    Raises:
        ValueError: If an option is unknown or out of range.

    Example:
        >>> Reading(chunk=1024).padding
        'zero'
    """

    centered: bool = True
    padding: Literal["zero", "encode"] = "zero"
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_reading("Reading", self.padding, self.chunk)


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Where volumes are read.

    Args:
        by: `"cross"`, the published search for trains; or without a search `"grid"`, with a phase
            drawn in training mode, `"jittered"`, `"low-discrepancy"` and `"random"`, as in
            `cpic.choose.positions`, or `"grid+peaks"`: half of the budget on a grid, the rest
            around the positions where a channel is largest; or `"attended"`: of eight times as many
            positions on a grid, which are encoded without gradient, those that the feature
            "attention" weighs most.
        budget: Positions read in each volume, except for the cross, whose number follows from
            `Search`.
        correction: Number of further positions at which the cross reads the encoded volume itself:
            the difference to the train, summed with quadrature weights, corrects all linear
            features {eq}`eq-cpic-correction`. They are then unbiased, whatever the train is, with
            a variance that falls with the number of positions and with the error of the train.

    Raises:
        ValueError: If a name is unknown, a number is out of range, or there is a correction
            without a cross.

    Example:
        >>> Positions(by="grid").budget
        1000
    """

    by: str = "cross"
    budget: int = 1000
    correction: int = 0

    def __post_init__(self) -> None:
        if self.by not in POSITIONS:
            raise ValueError(
                f"Positions needs `by` out of {', '.join(POSITIONS)}, got {self.by!r}."
            )
        check_positive("Positions", budget=self.budget)
        if self.correction and self.by != "cross":
            raise ValueError(
                f'Positions needs `by="cross"` for a correction, got {self.by!r}; other positions '
                "read the encoded volume itself, so there is nothing to correct."
            )
        if self.correction:
            check_positive("Positions", correction=self.correction)

    @property
    def coarse(self) -> int:
        """Positions of the first reading: half of the budget for grid+peaks."""
        return self.budget // 2 if self.by == "grid+peaks" else self.budget


# Fields by their former names as arguments of `CPIC`.
OLD = {"looks": "n_sweeps", "starts": "n_warm_starts", "centre": "centered"}
OBJECTS = {"search": Search, "reading": Reading}


def grouped(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `CPIC` from options that may be given one by one.

    Args:
        options: Arguments of `CPIC`, and fields of `Search` and `Reading`, also by their `OLD`
            names; `n_features`, and as `components` options of `Components` by name.
    """
    found = {OLD.get(name, name): value for name, value in options.items()}
    for name, kind in OBJECTS.items():
        flat = {one.name: found.pop(one.name) for one in fields(kind) if one.name in found}
        if flat:
            found[name] = replace(found.get(name) or kind(), **flat)
    n_features, components = found.pop("n_features", None), found.get("components")
    if n_features is not None or isinstance(components, Mapping):
        rank = (found.get("search") or Search()).rank
        found["components"] = Components(n_features or rank, **(components or {}))
    return found


def with_old_fields(owner: type[_T]) -> type[_T]:
    """A class that also has the fields of its `OBJECTS`, by their names before these."""
    before = {new: old for old, new in OLD.items()}
    for name, kind in OBJECTS.items():
        for one in fields(kind):
            setattr(owner, before.get(one.name, one.name), field(name, one.name))
    return owner
