"""The cases of layers from frames run, on our side and that of quick peers."""

import pytest

from tests.bench import cases_spectral as cases
from tests.bench.cases import all_cases

pytestmark = pytest.mark.bench
NAMES = list(cases.spectral_cases())


@pytest.mark.parametrize("name", NAMES)
def test_our_side_of_a_case_runs(name):
    case = all_cases()[name]
    figures = case.ours(0, check=False)
    assert figures
    assert all(value >= 0 for value in figures.values())
    # What a quick run leaves out is measured in the others.
    assert set(case.goals) <= {*figures, "norm error"}


def test_peers_make_the_same():
    frame, _ = cases.by_frames(*cases.reflector_numbers(256))
    other, _ = cases.by_lapack(*cases.reflector_numbers(256))
    assert (frame - other).abs().amax() < 1e-5


def test_what_is_promised_is_kept_for_few():
    assert cases.freedoms("sttp", 0, count=3) == {"free numbers beside the manifold": 0}
    figures = cases.after_training("sttp", 0, steps=10)
    assert figures["orthonormality defect"] < 1e-6
    assert figures["norm error"] < 1e-5
