import pytest

from tests.bench import cases_stores, harness

NAMES = [
    "positions random",
    "positions half-sweep",
    "read again",
    "read and encoded over HTTP, 20 ms away",
]


@pytest.mark.bench
@pytest.mark.parametrize("name", NAMES)
def test_both_sides_of_a_case_run(name, tmp_path, monkeypatch):
    (tmp_path / "_build").mkdir()
    monkeypatch.setattr(cases_stores, "ROOT", tmp_path)
    cases_stores.centers.cache_clear()
    case = cases_stores.store_cases(128)[f"cubes of 128^3, {name}"]
    rows = harness.measure(case, 1)
    cases_stores.centers.cache_clear()
    assert rows[0].unit == "seconds"
    assert all(row.value >= 0 for row in rows)
    decoded = [row.value for row in rows if row.unit == "chunks decoded"]
    assert decoded in ([], [0])
