"""A cohort with the tree of the OSIC challenge whose decline is a known function of the scans."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from cpic.cohorts._osic import COLUMNS, SMOKING, TABLE
from cpic.cohorts.synthetic import _chest, _fields, _scan, _slices, _store
from cpic.data._progress import Progress

FORMULA = (
    "FVC = first FVC * (1 + rate * weeks since the first visit) + 80 * normal, the first visit "
    "exact; rate = -0.0032 - 0.0026 * grain * base - 0.0008 * spread; "
    "grain = clip(log2(thickness / medium_thickness) / 0.7, -1, 1); "
    "base = clip(-(height + 0.1) / 0.5, -1, 1); spread = clip((extent - 0.19) / 0.07, -1, 1)"
)
RATE, INTERACTION, SPREAD, NOISE = -0.0032, -0.0026, -0.0008, 80.0
# Weeks from the first visit; about nine visits, as in the real set.
_VISITS = (0, 3, 6, 10, 15, 22, 31, 42, 55)
_UNREADABLE = 3
# Number of voxels painted at once.
_BLOCK = 2**22


@dataclasses.dataclass(frozen=True)
class Fibrosis:
    """The quantities that the decline depends on, measured in the masks of one patient.

    Attributes:
        thickness: Of the fibrotic walls in mm: their area divided by the length of their interface
            with cysts, within slices.
        height: Mean position of the fibrosis between the lowest (-1) and the highest (1) lung
            slice.
        extent: Fibrotic fraction of the lungs.
        medium_thickness: Reference value at this resolution, mm.
    """

    thickness: float
    height: float
    extent: float
    medium_thickness: float

    @property
    def grain(self) -> float:
        """Coarse honeycomb (1) or fine reticulation (-1)."""
        return _fields.graded(np.log2(self.thickness / self.medium_thickness), 0.7)

    @property
    def base(self) -> float:
        """Fibrosis at the base (1) or at the apex (-1)."""
        return _fields.graded(-(self.height + 0.1), 0.5)

    @property
    def spread(self) -> float:
        """Wide (1) or small (-1) extent."""
        return _fields.graded(self.extent - 0.19, 0.07)

    @property
    def rate(self) -> float:
        """Change of the FVC per week, relative to the first one."""
        return RATE + INTERACTION * self.grain * self.base + SPREAD * self.spread


class _Tally:
    """Counts over the slices of one patient, added in blocks from the feet up."""

    def __init__(self) -> None:
        self.heights: list[int] = []
        self.scars: list[int] = []
        self.walls = self.meetings = 0

    def add(self, lung: np.ndarray, scarred: np.ndarray, walls: np.ndarray) -> None:
        self.heights += lung.sum((1, 2)).tolist()
        self.scars += scarred.sum((1, 2)).tolist()
        self.walls += int(np.count_nonzero(walls))
        cysts = scarred & ~walls
        self.meetings += sum(_fields.meetings(walls, cysts, axis) for axis in (1, 2))

    def result(self, pixel: float) -> Fibrosis:
        heights, scars = np.array(self.heights), np.array(self.scars)
        return Fibrosis(
            thickness=self.walls * pixel / max(self.meetings, 1),
            height=_fields.mean_place(scars, heights),
            extent=float(scars.sum() / heights.sum()),
            medium_thickness=0.32 * _chest.finest(pixel),
        )


def measure_fibrosis(
    lung: np.ndarray, scarred: np.ndarray, walls: np.ndarray, *, pixel: float
) -> Fibrosis:
    """Measure all quantities that the decline of an OSIC-like patient depends on.

    Args:
        lung: (slices, H, W) bool, from the feet up.
        scarred: Fibrotic part of it.
        walls: Dense part of the fibrosis.
        pixel: Size of a pixel in mm.

    Example:
        >>> lung = np.ones((8, 16, 16), bool)
        >>> scarred = lung & (np.arange(8) < 2)[:, None, None]
        >>> walls = scarred & (np.arange(16) % 4 < 2)
        >>> found = measure_fibrosis(lung, scarred, walls, pixel=2.0)
        >>> found.extent, found.height, round(found.thickness, 3)
        (0.25, -0.75, 2.286)
    """
    tally = _Tally()
    tally.add(lung, scarred, walls)
    return tally.result(pixel)


def _patient_name(seed: int, k: int) -> str:
    """An identifier like those of the real set, in the order of the patients."""
    digits = _fields.child(seed, k, 3).integers(0, 10, 12)
    return f"ID{k + 1:05d}637202" + "".join(map(str, digits))


def _choose(k: int, shape: tuple[int, ...], rng: np.random.Generator):
    """Sizes of a patient's scan, and how it is stored."""
    n_slices = max(8, round(shape[0] * rng.uniform(0.75, 1.25)))
    scale = rng.choice([1.0, 0.75, 1.25], p=[0.7, 0.15, 0.15])
    sizes = (n_slices, *(max(24, 2 * round(n * scale / 2)) for n in shape[1:]))
    positions = k % 4 != 1
    # The first file is the top slice; if positions are present, the names may be arbitrary.
    numbers = np.arange(n_slices, 0, -1)
    if positions and k % 2 == 0:
        numbers = rng.permutation(numbers)
    scanner = _slices.Scanner(
        signed=k % 3 != 2,
        positions=positions,
        numbers=tuple(int(n) for n in numbers),
        readable=k != _UNREADABLE,
    )
    return sizes, scanner


def _visits(k: int, rate: float, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Rows of one patient in the table, with the value before noise."""
    male = bool(rng.random() < 0.75)
    age = int(np.clip(rng.normal(67, 7), 48, 88))
    normal = (3900 if male else 2900) * np.exp(rng.normal(0, 0.12)) * (1 - 0.006 * (age - 60))
    first = round(float(np.clip(normal * rng.uniform(0.6, 1.0), 1200, 6000)))
    person = {
        "Age": age,
        "Sex": "Male" if male else "Female",
        "SmokingStatus": str(rng.choice(SMOKING, p=[0.67, 0.28, 0.05])),
    }
    gaps = np.array(_VISITS) + np.r_[0, rng.integers(-1, 2, len(_VISITS) - 1)]
    gaps = list(gaps[: len(gaps) - rng.integers(0, 2)])
    if k % 5 == 2:
        # Twice in one week, as a few patients of the real set.
        gaps.insert(4, gaps[3])
    start = int(rng.integers(-5, 30))
    rows = []
    for visit, gap in enumerate(gaps):
        clean = first * (1 + rate * float(gap))
        fvc = max(500, round(clean + NOISE * rng.standard_normal())) if visit else first
        rows.append(
            {
                "Weeks": start + int(gap),
                "FVC": fvc,
                "Percent": round(100 * fvc / float(normal), 10),
                **person,
                "visit": visit,
                "noise_free_fvc": clean,
                "noise_free_target": clean / first,
            }
        )
    return rows


def _make_patient(
    k: int, folder: Path, *, seed: int, name: str, shape: tuple[int, ...]
) -> dict[str, Any]:
    """Write the slices of one patient; return its row of the truth."""
    chest = _chest.draw_chest(_fields.child(seed, k, 0))
    sizes, scanner = _choose(k, shape, _fields.child(seed, k, 1))
    grid = _chest.grid_of(chest, sizes)
    spacing = (_chest.HEIGHT / sizes[0], chest.width / sizes[2])
    noise = _fields.child(seed, k, 2)
    tally = _Tally()
    step = max(1, _BLOCK // (sizes[1] * sizes[2]))
    for start in range(0, sizes[0], step):
        hu, masks = _scan.paint(chest, grid, slice(start, start + step), noise)
        tally.add(*masks)
        _slices.write_slices(folder, hu, start, patient=name, scanner=scanner, spacing=spacing)
    found = tally.result(spacing[1])
    latent = {
        **dataclasses.asdict(found),
        **{key: getattr(found, key) for key in ("grain", "base", "spread", "rate")},
    }
    return {
        "Patient": name,
        "readable": scanner.readable,
        **latent,
        "visits": _visits(k, found.rate, _fields.child(seed, k, 4)),
    }


def make_osic_like(
    root: str | Path,
    *,
    n_patients: int = 176,
    shape: tuple[int, int, int] = (64, 512, 512),
    seed: int = 0,
    progress: Progress = False,
) -> Path:
    """Generate a cohort with the tree, formats and columns of the OSIC fibrosis challenge.

    Each scan is a CT of a phantom chest (body, bones, heart, lungs with airways and vessels) with
    fibrosis below the pleura. The decline of the lung volume FVC is a given function of the scan,
    plus noise at every visit except the first: the product of the coarseness of the fibrotic
    structure, a few voxels wide, and of its position between base and apex of the lungs. Fine and
    coarse structures have the same mean density, so a coarse scan does not distinguish them. The
    extent has a small effect.

    Under `root`: `train/<patient>/<n>.dcm`, uncompressed CT slices with intercept -1024;
    `train.csv` (Patient, Weeks, FVC, Percent, Age, Sex, SmokingStatus); `truth.csv` and
    `truth.json` with the FVC before noise and the formula. As in the real set: numbers of slices
    and sizes differ; file numbers of every other patient do not follow the position; patients 2,
    6, 10, ... have no ImagePositionPatient, and their first file is the top slice; two of three
    patients store -2000 outside the scanner's circle; patient 4 cannot be decoded. Patients depend
    only on the seed and their number; files are byte-identical for the same seed. A killed run can
    be continued, and more patients can be added later.

    Args:
        root: An empty or new folder, or one of an earlier run with the same shape and seed.
        n_patients: At least 1.
        shape: Typical numbers of slices, rows and columns; slices at least 8, the others at least
            24.
        seed: Seed of all random choices.
        progress: Show a progress bar; or a callable that wraps the patients, such as `tqdm.tqdm`.

    Returns:
        The root: the folder that holds `train.csv`.

    Raises:
        CohortError: If an argument is invalid, or the folder has other content.

    Example:
        >>> make_osic_like("osic", n_patients=12, shape=(32, 128, 128))  # doctest: +SKIP
        PosixPath('osic')
    """
    import pandas

    root = Path(root)
    _store.check_request("make_osic_like", n_patients, shape, (8, 24, 24))
    names = [_patient_name(seed, k) for k in range(n_patients)]
    recipe = {"kind": "osic", "version": 1, "seed": seed, "shape": list(shape)}

    def make(k: int, folder: Path) -> dict[str, Any]:
        return _make_patient(k, folder, seed=seed, name=names[k], shape=shape)

    rows = []
    for patient in _store.fill(root, root / "train", recipe, names, make, progress=progress):
        visits = patient.pop("visits")
        rows += [{"Patient": patient["Patient"], **visit, **patient} for visit in visits]
    truth = pandas.DataFrame(rows)
    tables = {TABLE: truth[list(COLUMNS)], "truth.csv": truth}
    _store.write_tables(root, tables, {"formula": FORMULA, "noise_ml": NOISE, **recipe})
    return root
