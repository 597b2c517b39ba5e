"""The script that writes all of a large volume."""

import make_large_store
import pytest
import torch

from cpic import data


def test_all_of_it_is_written_and_a_second_run_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    out = tmp_path / "v.zarr"
    make_large_store.main(str(out), side=40, chunk=16, shard=32)
    assert "64,000 voxels in " in capsys.readouterr().out
    source = data.FormulaVolume(make_large_store.terraces, (40,) * 3, dtype=torch.uint8)
    assert torch.equal(data.open_volume(out).read(), source.read())
    lost = out / "c" / "1" / "0" / "1"
    whole = lost.read_bytes()
    lost.unlink()
    make_large_store.main(str(out), side=40, chunk=16, shard=32)
    assert lost.read_bytes() == whole


def test_what_does_not_fit_is_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match="OnDemandVolume needs 3 chunk edges"):
        make_large_store.main(str(tmp_path / "v.zarr"), side=40, chunk=16, shard=24)


def test_terraces_stay_in_their_type():
    axes = [torch.arange(640).reshape(shape) for shape in ((-1, 1, 1), (1, -1, 1), (1, 1, -1))]
    values = make_large_store.terraces(*axes)
    assert values.dtype == torch.uint8
    steps = [(axis % period // edge).long() for axis, period, edge in zip(
        axes, (256, 384, 640), (16, 24, 40), strict=True)]  # fmt: skip
    assert torch.equal(values.long(), 6 * steps[0] + 6 * steps[1] + 5 * steps[2])
