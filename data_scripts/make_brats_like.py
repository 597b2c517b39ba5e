"""Generate a cohort with the tree of BraTS 2020 from the MNI152 template; no download.

    python data_scripts/make_brats_like.py OUT --n_patients 12 --shape [64,64,64] --seed 0

A killed run can be continued. At the end it prints a lower bound on the error of any model.
"""

from jsonargparse import auto_cli

from cpic._errors import CohortError
from cpic.cohorts.synthetic import best_error, make_brats_like


def main(
    out: str,
    n_patients: int = 236,
    shape: tuple[int, int, int] = (240, 240, 155),
    seed: int = 0,
) -> None:
    """Generate a cohort with the tree of BraTS 2020 and known survival.

    Args:
        out: an empty or new folder, or one of a run to continue.
        n_patients: one of them is still alive, as in the real list.
        shape: voxels of a scan, which always covers 240x240x155 mm.
        seed: seed of all random choices.
    """
    try:
        tree = make_brats_like(out, n_patients=n_patients, shape=shape, seed=seed, progress=True)
    except CohortError as error:
        raise SystemExit(str(error)) from error
    print(f"{n_patients} patients in {tree}")
    print(f"Best possible error from the scans: {best_error(out):.1f} days")
    print(f"Best possible error from scans and age: {best_error(out, age=True):.1f} days")


if __name__ == "__main__":
    auto_cli(main, as_positional=True)
