"""The cases of patch selection run, on small images."""

import pytest

from tests.bench import cases_ips as cases


@pytest.mark.bench
def test_steps_and_selections_run_on_small_images():
    for run in (cases.stepped, cases.selected, cases.passed):
        assert run(300, 0)["seconds"] > 0
    assert cases.slide(50, 20, 0)["seconds"] > 0


@pytest.mark.bench
def test_a_step_on_a_picture_decodes_its_tiles_once_and_those_of_its_patches(tmp_path, monkeypatch):
    monkeypatch.setattr(cases, "ROOT", tmp_path)
    cases.picture.cache_clear()
    lazily = cases.stepped_on_picture((600, 1100), 0)["decoded, share"]
    assert 1 <= lazily <= 2
    assert cases.stepped_on_picture((600, 1100), 0, whole=True)["decoded, share"] == 1
    cases.picture.cache_clear()


@pytest.mark.bench
def test_the_peer_takes_a_step():
    pytest.importorskip("torchmil")  # `make install EXTRAS=all,bench`
    assert cases.stepped_on_all(300, 0)["seconds"] > 0


@pytest.mark.bench
def test_exact_selections_never_differ():
    found = cases.differing(40, 0)
    assert found["exact, sets"] == 0
    assert 0 < found["official, share"] < 1


@pytest.mark.bench
def test_every_case_has_its_name_and_goals():
    names = cases.ips_cases()
    assert len(names) == 8
    assert all(name == case.name for name, case in names.items())
