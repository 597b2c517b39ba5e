import pytest

from tests.bench import harness
from tests.bench.cases_data import data_cases


@pytest.mark.bench
@pytest.mark.parametrize("name", ["in memory", "shard by shard into a store"])
def test_our_side_of_a_case_runs(name, tmp_path, monkeypatch):
    (tmp_path / "_build").mkdir()
    monkeypatch.setattr("tests.bench.cases_data.ROOT", tmp_path)
    case = data_cases(20)[f"up-sampling 20^3 to 40^3, {name}"]
    rows = harness.measure(case, 1)
    assert {row.unit for row in rows} == {"seconds", "error"}
    assert all(row.met for row in rows if row.unit == "error")
    assert [p.name for p in (tmp_path / "_build").iterdir()] == ["bench-smooth-20.npy"]
