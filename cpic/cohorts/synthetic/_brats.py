"""A cohort with the tree of BraTS 2020 whose survival is a known function of the scans."""

import dataclasses
import functools
import gzip
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cpic.cohorts._layout import BRATS
from cpic.cohorts.synthetic import _brain, _fields, _store
from cpic.data._progress import Progress

TREE = BRATS.folders[1]
FORMULA = (
    "days = 480 + 330 * grain * side + 30 * size - 2.5 * (age - 60) + 60 * normal, at least 5; "
    "grain = clip(log2(thickness / medium_thickness) / 0.45, -1, 1); "
    "side = clip(lateral / 0.45, -1, 1); size = clip(log2(volume / medium_volume), -1, 1)"
)
BASE, INTERACTION, SIZE, AGE, NOISE, LEAST = 480.0, 330.0, 30.0, -2.5, 60.0, 5
MEAN_AGE = 60.0
# The patient who is still alive; the real list has one such row as well.
_ALIVE = 1


@dataclasses.dataclass(frozen=True)
class Lesion:
    """The quantities that survival depends on, measured in the files of one patient.

    Attributes:
        thickness: Of the enhancing tissue in mm: its volume divided by its interface with necrosis.
        lateral: Position of the tumor core between the mid-plane (0) and the side of the brain, 1
            at the patient's left, -1 at the right.
        volume: Of necrosis and enhancing tissue, ml.
        medium_thickness: Reference value at this resolution, mm.
        medium_volume: Reference value at this resolution, ml.
    """

    thickness: float
    lateral: float
    volume: float
    medium_thickness: float
    medium_volume: float

    @property
    def grain(self) -> float:
        """Thick (1) or fine (-1) enhancing structure."""
        return _fields.graded(math.log2(self.thickness / self.medium_thickness), 0.45)

    @property
    def side(self) -> float:
        """Left (1) or right (-1)."""
        return _fields.graded(self.lateral, 0.45)

    @property
    def size(self) -> float:
        """Large (1) or small (-1)."""
        return _fields.graded(math.log2(self.volume / self.medium_volume), 1)

    def days(self, age: float = MEAN_AGE) -> float:
        """Survival without noise; with the mean age, the part that the image determines."""
        mean = BASE + INTERACTION * self.grain * self.side + SIZE * self.size
        return mean + AGE * (age - MEAN_AGE)


def measure_lesion(labels: np.ndarray, brain: np.ndarray) -> Lesion:
    """Measure all quantities that the survival of a BraTS-like patient depends on.

    Args:
        labels: (X, Y, Z) of the `seg` file.
        brain: (X, Y, Z), true inside the brain: any scan of the patient, compared with 0.

    Example:
        >>> labels = np.zeros((48, 48, 48), np.uint8)
        >>> labels[30:36, 20:28, 20:28] = 4
        >>> lesion = measure_lesion(labels, np.ones((48, 48, 48), bool))
        >>> round(lesion.lateral, 3), round(lesion.side, 3)
        (0.375, 0.833)
    """
    sizes = _brain.spacing(labels.shape)
    voxel = math.prod(sizes)
    rim, dead = labels == _brain.ENHANCING, labels == _brain.NECROSIS
    border = sum(
        voxel / size * _fields.meetings(rim, dead, axis) for axis, size in enumerate(sizes)
    )
    along = (rim | dead).sum((1, 2))
    return Lesion(
        thickness=float(np.count_nonzero(rim) * voxel / max(border, voxel / max(sizes))),
        lateral=_fields.mean_place(along, np.asarray(brain.any((1, 2)))),
        volume=float(along.sum() * voxel / 1000),
        medium_thickness=0.16 * _brain.finest(labels.shape),
        medium_volume=4 / 3 * math.pi * _brain.tumor_radius(23, labels.shape) ** 3 / 1000,
    )


def _name(number: int) -> str:
    return f"BraTS20_Training_{number:03d}"


def _nifti(values: np.ndarray) -> bytes:
    """A gzipped NIfTI file with reproducible bytes."""
    import nibabel

    sizes = _brain.spacing(values.shape)
    # Voxel axes run to the left, to the back and up, as in the real set.
    affine = np.diag([-sizes[0], -sizes[1], sizes[2], 1.0])
    affine[1, 3] = sizes[1] * (values.shape[1] - 1)
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm", "sec")
    return gzip.compress(image.to_bytes(), 4, mtime=0)


def _make_patient(k: int, folder: Path, *, seed: int, shape: tuple[int, ...]) -> dict[str, Any]:
    """Write the five files of one patient; return its row of the truth."""
    head = _brain.draw_head(_fields.child(seed, k, 0))
    maps = _brain.tissue(head, shape)
    labels = _brain.grow(head, maps)
    scans = _brain.contrasts(head, maps, labels, _fields.child(seed, k, 1))
    name = _name(k + 1)
    for contrast, values in {**scans, "seg": labels}.items():
        (folder / f"{name}_{contrast}.nii.gz").write_bytes(_nifti(values))
    lesion = measure_lesion(labels, scans["t1"] > 0)
    rng = _fields.child(seed, k, 2)
    age = round(float(np.clip(rng.normal(MEAN_AGE, 12), 19, 86)), 3)
    days = lesion.days(age)
    return {
        "Brats20ID": name,
        "age": age,
        "resection": str(rng.choice(["GTR", "STR", "NA"], p=[0.5, 0.05, 0.45])),
        "survival_days": max(LEAST, round(days + NOISE * rng.standard_normal())),
        "noise_free_days": days,
        "image_days": lesion.days(),
        "grain": lesion.grain,
        "side": lesion.side,
        "size": lesion.size,
        **dataclasses.asdict(lesion),
    }


def make_brats_like(
    root: str | Path,
    *,
    n_patients: int = 236,
    shape: tuple[int, int, int] = (240, 240, 155),
    seed: int = 0,
    progress: Progress = False,
    run: Callable[..., Iterable[Any]] = map,
) -> Path:
    """Generate a cohort with the tree, formats and columns of BraTS 2020.

    Each brain is the MNI152 template under a smooth one-to-one deformation, with a lesion
    (necrosis, enhancing structure, edema) grown in its white matter. Survival is a given function
    of the content of the files, plus noise: the product of the fineness of the enhancing structure,
    a few voxels wide, and of the side of the brain with the tumor. Fine or thick, the structure is
    the same fraction of the tumor, so a coarse scan does not distinguish them, and the template is
    symmetric, so no histogram or patch distinguishes the sides. Volume and age have a small effect.

    Under `root`: `MICCAI_BraTS2020_TrainingData/BraTS20_Training_NNN/` with `flair`, `t1`, `t1ce`,
    `t2` (int16, 0 outside the brain) and `seg` (0, 1, 2, 4), all `.nii.gz`; `survival_info.csv`,
    where the second patient is `ALIVE (361 days later)`; `name_mapping.csv`; and, beside that
    folder, `truth.csv` and `truth.json` with the survival before noise and the formula. A scan
    always covers 240x240x155 mm. Patients depend only on the seed and their number; files are
    byte-identical for the same seed. A killed run can be continued, and more patients can be added
    later.

    Args:
        root: An empty or new folder, or one of an earlier run with the same shape and seed.
        n_patients: At least 1.
        shape: Numbers of voxels, each at least 24.
        seed: Seed of all random choices.
        progress: Show a progress bar; or a callable that wraps the patients, such as `tqdm.tqdm`.
        run: Maps a function over the patients; use `Executor.map` for several processes.

    Returns:
        The folder that holds the tree of the real set.

    Raises:
        CohortError: If an argument is invalid, or the folder has other content.

    References: {cite}`fonov2009unbiased`.

    Example:
        >>> make_brats_like("brats", n_patients=12, shape=(64, 64, 64))  # doctest: +SKIP
        PosixPath('brats/MICCAI_BraTS2020_TrainingData')
    """
    import pandas

    root = Path(root)
    _store.check_request("make_brats_like", n_patients, shape, (24, 24, 24))
    names = [_name(k + 1) for k in range(n_patients)]
    recipe = {"kind": "brats", "version": 1, "seed": seed, "shape": list(shape)}
    make = functools.partial(_make_patient, seed=seed, shape=shape)
    known = _store.fill(root, root / TREE, recipe, names, make, progress=progress, run=run)
    truth = pandas.DataFrame(known)
    truth["alive"] = truth.index == _ALIVE
    days = truth["survival_days"].astype(str).mask(truth["alive"], "ALIVE (361 days later)")
    survival = {
        "Brats20ID": truth["Brats20ID"],
        "Age": truth["age"],
        "Survival_days": days,
        "Extent_of_Resection": truth["resection"],
    }
    others = ("BraTS_2017_subject", "BraTS_2018_subject", "TCGA_TCIA_subject", "BraTS_2019_subject")
    mapping: dict[str, Any] = {"Grade": "HGG", **{f"{other}_ID": "NA" for other in others}}
    mapping["BraTS_2020_subject_ID"] = truth["Brats20ID"]
    tables = {
        f"{TREE}/survival_info.csv": pandas.DataFrame(survival),
        f"{TREE}/name_mapping.csv": pandas.DataFrame(mapping),
        "truth.csv": truth,
    }
    _store.write_tables(root, tables, {"formula": FORMULA, "noise_days": NOISE, **recipe})
    return root / TREE
