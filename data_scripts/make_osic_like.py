"""Generate a cohort with the tree of the OSIC challenge from a chest phantom; no download.

    python data_scripts/make_osic_like.py OUT --n_patients 12 --shape [32,128,128] --seed 0

A killed run can be continued. At the end it prints an upper bound on the score of any model.
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
    """Generate a cohort with the tree of the OSIC challenge and known decline.

    Args:
        out: an empty or new folder, or one of a run to continue.
        n_patients: the fourth of them cannot be decoded.
        shape: typical number of slices, rows and columns.
        seed: seed of all random choices.
    """
    try:
        root = make_osic_like(out, n_patients=n_patients, shape=shape, seed=seed, progress=True)
    except CohortError as error:
        raise SystemExit(str(error)) from error
    print(f"{n_patients} patients in {root}")
    print(f"Best possible mean Laplace log likelihood: {best_error(out):.4f}")


if __name__ == "__main__":
    auto_cli(main, as_positional=True)
