"""Positions of the voxels of a NIfTI image in space, and alignment of two images."""

import itertools
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from cpic.data._faults import broken

# Distances of two grids, in voxels, above which they are reported as different.
_APART = 0.5


class Place(NamedTuple):
    """The affine matrix (4, 4) from voxels to mm, None if unknown; and oddities."""

    affine: np.ndarray | None
    notes: tuple[str, ...] = ()

    @property
    def orientation(self) -> str:
        """Three letters for the directions of the axes, such as "LPS"; empty if unknown."""
        import nibabel

        return "" if self.affine is None else "".join(nibabel.aff2axcodes(self.affine))

    def turns(self, orientation: str, shape: tuple[int, ...]) -> tuple[Any, "Place"]:
        """The permutation and reversal of axes towards `orientation`, and the resulting place."""
        from nibabel import orientations

        start, end = (orientations.axcodes2ornt(o) for o in (self.orientation, orientation))
        turn = orientations.ornt_transform(start, end)
        affine = self.affine @ orientations.inv_ornt_aff(turn, shape)
        return turn, self._replace(affine=affine)


def place_of(header: Any) -> Place:
    """The place from a nibabel header: the sform, or without one the qform."""
    from nibabel.spatialimages import HeaderDataError

    known: dict[str, np.ndarray] = {}
    notes = []
    for name in ("sform", "qform"):
        try:
            matrix = getattr(header, f"get_{name}")(coded=True)[0]
        except (HeaderDataError, ValueError):
            matrix = np.full((4, 4), np.nan)
        if matrix is not None and _maps_space(matrix):
            known[name] = matrix
        elif matrix is not None:
            notes.append(f"its {name} maps nothing into space")
    if len(known) == 2:
        parts = distances(known["sform"], known["qform"], header.get_data_shape())
        if sum(parts) > _APART:
            notes.append(f"its sform and qform disagree ({_said(parts)}), the sform is used")
    return Place(next(iter(known.values()), None), tuple(notes))


def _maps_space(matrix: np.ndarray) -> bool:
    edges = np.linalg.norm(matrix[:3, :3], axis=0)
    if not np.isfinite(matrix).all() or not edges.all() or not np.isfinite(edges).all():
        return False
    return bool(abs(np.linalg.det(matrix[:3, :3] / edges)) > 1e-3)


def distances(first: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> tuple[float, float]:
    """Distances between two grids of one shape, in voxels of the first: of form, and of shift.

    The second is the distance of their centers; the first is the remaining distance of corners, due
    to other voxel sizes or axis directions.
    """
    middle = np.array([n - 1 for n in (*shape, 1, 1)[:3]]) / 2
    change = np.linalg.inv(first[:3, :3]) @ (other - first)[:3]
    corners = [change[:, :3] @ (middle * signs) for signs in itertools.product((-1, 1), repeat=3)]
    shift = change @ np.append(middle, 1)
    return float(np.linalg.norm(corners, axis=1).max()), float(np.linalg.norm(shift))


class Located(Protocol):
    """A file, or an image, whose position is known."""

    @property
    def path(self) -> Path: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def place(self) -> Place: ...


class Fit(NamedTuple):
    """How an image is aligned to another one, and notes about it.

    It is reoriented, which determines its shape; "" leaves it unchanged.
    """

    orientation: str
    shape: tuple[int, ...]
    notes: tuple[str, ...] = ()


def fit(first: Located, other: Located) -> Fit:
    """Align `other` to the voxels of `first`, according to their headers.

    Raises:
        VolumeError: If voxels of both differ in size or direction, so that alignment is impossible.
    """
    shape, place = other.shape, other.place
    silent = [image for image in (first, other) if image.place.affine is None]
    if first.place.affine is None or place.affine is None:
        note = f"{silent[0].path.name} has no position in space, unlike the others"
        return Fit("", shape, (note,) if len(silent) == 1 else ())
    if shape == first.shape and max(distances(first.place.affine, place.affine, shape)) <= _APART:
        return Fit("", shape)
    orientation, notes = "", ()
    if place.orientation != first.place.orientation:
        orientation = first.place.orientation
        turned = f"its axes point to {place.orientation} and are reoriented to {orientation}"
        notes = (f"{turned}, as those of {first.path.name}",)
        turn, place = place.turns(orientation, shape)
        shape = tuple(shape[k] for k in np.argsort(turn[:, 0]))
    if shape == first.shape and place.affine is not None:
        parts = distances(first.place.affine, place.affine, shape)
        if parts[0] > 1:
            fault = f"does not lie on {first.path} ({_said(parts)})"
            raise broken(other.path, fault, "resample it to that grid, or correct its header")
        if max(parts) > _APART:
            apart = f"it does not lie on {first.path.name} ({_said(parts)})"
            notes += (f"{apart}, it is read as if it did",)
    return Fit(orientation, shape, notes)


def _said(parts: tuple[float, float]) -> str:
    form, shift = parts
    said = {
        f"corners up to {form:.1f} voxels off by spacing or direction": form > _APART,
        f"middles {shift:.1f} voxels apart": shift > _APART,
    }
    return ", ".join(word for word, holds in said.items() if holds) or f"{sum(parts):.1f} voxels"
