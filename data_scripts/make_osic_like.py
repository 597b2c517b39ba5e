"""Make a cohort with the tree of the OSIC fibrosis challenge from a chest phantom; no download.

    python data_scripts/make_osic_like.py OUT --n_patients 12 --shape [32,128,128] --seed 0

A killed run goes on where it was. At the end it prints the score that no model can beat.
"""

from jsonargparse import auto_cli

from cpic._errors import CohortError
from cpic.cohorts.synthetic import best_error, make_osic_like


def main(
    out: str,
    n_patients: int = 176,
    shape: tuple[int, int, int] = (64, 512, 512),
    seed: int = 0,
) -> None:
    """Make a cohort with the tree of the OSIC challenge whose decline is known.

    Args:
        out: an empty or new folder, or that of a run to go on with.
        n_patients: the fourth of them cannot be decoded.
        shape: typical number of slices, rows and columns.
        seed: of everything.
    """
    try:
        root = make_osic_like(out, n_patients=n_patients, shape=shape, seed=seed, progress=True)
    except CohortError as error:
        raise SystemExit(str(error)) from error
    print(f"{n_patients} patients in {root}")
    print(f"Best possible mean Laplace log likelihood: {best_error(out):.4f}")


if __name__ == "__main__":
    auto_cli(main, as_positional=True)
