"""The numbered clauses of `cpic.data._volume`, on every implementation, against a dense twin."""

import hashlib
import pickle

import numpy as np
import pytest
import torch

from cpic import data
from cpic._errors import VolumeError

SHAPE = (13, 10, 11)


def stored(shape=SHAPE, channels=1, dtype=np.float32, seed=0):
    full = (*shape, channels) if channels > 1 else shape
    return np.random.default_rng(seed).integers(1, 100, full).astype(dtype)


class Lookup:
    """A formula that pickles: the values of an array."""

    def __init__(self, array):
        self.tensor = torch.from_numpy(array)

    def __call__(self, *axes):
        return self.tensor[tuple(axes)]


def nifti(folder, array, ending=".nii", scale=None):
    import nibabel

    image = nibabel.Nifti1Image(array, np.eye(4))
    if scale:
        image.header.set_slope_inter(*scale)
    path = folder / f"scan{ending}"
    nibabel.save(image, path)
    return path


def make_tensor(folder):
    return data.ArrayVolume(torch.from_numpy(stored())), stored()


def make_transposed(folder):
    return data.ArrayVolume(stored(SHAPE[::-1]).T[:, ::-1]), stored(SHAPE[::-1]).T[:, ::-1]


def make_plane(folder):
    return data.ArrayVolume(stored((9, 14), dtype=np.uint8)), stored((9, 14), dtype=np.uint8)


def make_channels(folder):
    return data.ArrayVolume(stored(channels=3), channels=3), stored(channels=3)


def make_npy(folder):
    np.save(folder / "v.npy", stored(dtype=np.int16))
    return data.open_volume(folder / "v.npy"), stored(dtype=np.int16)


def make_raw(folder):
    values = stored(dtype=">u2")
    (folder / "v.raw").write_bytes(b"head" + values.tobytes("F"))
    volume = data.open_volume(folder / "v.raw", shape=SHAPE, dtype=">u2", offset=4, order="F")
    return volume, stored(dtype=np.int32)


def make_nii(folder):
    return data.open_volume(nifti(folder, stored())), stored()


def make_nii_scaled(folder):
    import nibabel

    path = nifti(folder, stored(dtype=np.int16), scale=(0.5, -3.0))
    return data.open_volume(path), nibabel.load(path).get_fdata().astype(np.float32)


def make_nii_gz(folder):
    path = nifti(folder, stored(dtype=np.uint8), ".nii.gz")
    return data.open_volume(path, cache=folder / "cache"), stored(dtype=np.uint8)


def make_zarr(folder):
    data.save_zarr(stored(), folder / "v.zarr", chunks=(4, 3, 5))
    return data.open_volume(folder / "v.zarr"), stored()


def make_sharded(folder):
    data.save_zarr(stored(), folder / "v.zarr", chunks=(2, 3, 2), shards=(4, 6, 4))
    return data.open_volume(folder / "v.zarr"), stored()


def make_zarr_channels(folder):
    volume = data.ArrayVolume(stored((9, 14), channels=2), channels=2)
    data.save_zarr(volume, folder / "v.zarr", chunks=(4, 4))
    return data.ZarrVolume(folder / "v.zarr", channels=2), stored((9, 14), channels=2)


def make_dicom(folder):
    from tests.data.test_dicom import write_series

    series = write_series(folder / "series", stored(dtype=np.int16), intercept=-200)
    return data.open_volume(series), stored() - 200


def make_formula(folder):
    return data.FormulaVolume(Lookup(stored()), SHAPE, dtype=torch.float32), stored()


def make_formula_channels(folder):
    values = stored(channels=2)
    volume = data.FormulaVolume(Lookup(values), SHAPE, channels=2, dtype=torch.float32)
    return volume, values


def make_flipped(folder):
    data.save_zarr(stored(), folder / "v.zarr", chunks=(4, 3, 5))
    volume = data.FlippedVolume(data.open_volume(folder / "v.zarr"), axes=(0, 2))
    return volume, stored()[::-1, :, ::-1].copy()


def make_flipped_channels(folder):
    values = stored((9, 14), channels=2)
    inner = data.ArrayVolume(values, channels=2)
    return data.FlippedVolume(inner, axes=[1]), values[:, ::-1].copy()


MAKERS = [value for name, value in list(globals().items()) if name.startswith("make_")]


def twin_cubes(dense, centers, size, channels):
    """Padded by hand and sliced one by one."""
    if channels == 1:
        dense = dense[..., None]
    n_axes, reach = dense.ndim - 1, 40
    padded = np.pad(dense, [(reach, reach)] * n_axes + [(0, 0)])
    cubes = []
    for center in centers.tolist():
        low = [c - size // 2 + reach for c in center]
        cubes.append(np.moveaxis(padded[tuple(slice(k, k + size) for k in low)], -1, 0))
    return torch.from_numpy(np.stack(cubes))


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__.removeprefix("make_"))
def pair(request, tmp_path):
    return request.param(tmp_path)


def draw_centers(volume, n, generator, margin=8):
    return torch.stack(
        [torch.randint(-margin, k + margin, (n,), generator=generator) for k in volume.shape], 1
    )


class TestVolume:
    def test_is_described_without_reading(self, pair):
        volume, dense = pair
        assert isinstance(volume, data.Volume)
        assert volume.shape == dense.shape[: len(volume.shape)]
        assert volume.dtype == torch.from_numpy(dense.copy()).dtype
        assert volume.ledger == data.Ledger()

    @pytest.mark.parametrize("size", [1, 3, 5, 15])
    def test_cubes_equal_the_dense_twin(self, pair, size, generator):
        volume, dense = pair
        centers = draw_centers(volume, 60, generator)
        cubes = volume.cubes(centers, size=size)
        assert cubes.dtype == volume.dtype
        twin = twin_cubes(dense, centers, size, volume.channels)
        torch.testing.assert_close(cubes, twin, rtol=0, atol=0)

    def test_voxels_equal_the_dense_twin_and_are_zero_outside(self, pair, generator):
        volume, dense = pair
        coords = draw_centers(volume, 60, generator)
        twin = twin_cubes(dense, coords, 1, volume.channels).reshape(60, -1)
        twin = twin[:, 0] if volume.channels == 1 else twin
        torch.testing.assert_close(volume.voxels(coords), twin, rtol=0, atol=0)
        square = coords.reshape(4, 15, -1)
        torch.testing.assert_close(volume.voxels(square).flatten(0, 1), twin, rtol=0, atol=0)

    def test_order_and_duplicates_change_nothing_but_what_is_asked(self, pair, generator):
        volume, _ = pair
        centers = draw_centers(volume, 20, generator, margin=0)
        once = volume.cubes(centers, size=3)
        # Indices of shards are kept from the first call on.
        volume.ledger.reset()
        volume.cubes(centers, size=3)
        before = volume.ledger + data.Ledger()
        order = torch.randint(0, 20, (70,), generator=generator)
        order[:20] = torch.arange(19, -1, -1)
        volume.ledger.reset()
        assert torch.equal(volume.cubes(centers[order], size=3), once[order])
        assert volume.ledger.asked == 70 * 3 ** len(volume.shape)
        assert (volume.ledger.voxels, volume.ledger.bytes) == (before.voxels, before.bytes)

    def test_ledger_counts_distinct_voxels_inside(self, pair, generator):
        volume, _ = pair
        centers = draw_centers(volume, 12, generator, margin=3)
        volume.cubes(centers, size=5)
        reach = range(-2, 3)
        steps = torch.cartesian_prod(*[torch.tensor(list(reach))] * len(volume.shape))
        around = (centers[:, None] + steps).flatten(0, 1)
        inside = ((around >= 0) & (around < torch.tensor(volume.shape))).all(1)
        assert volume.ledger.voxels == len(around[inside].unique(dim=0))
        assert volume.ledger.fraction(volume) == pytest.approx(
            volume.ledger.voxels / np.prod(volume.shape)
        )

    def test_positions_far_outside_are_zero_and_read_nothing(self, pair):
        volume, _ = pair
        far = torch.tensor([[2**62] * len(volume.shape), [-(2**62)] * len(volume.shape)])
        assert not volume.cubes(far, size=3).any()
        assert not volume.voxels(far).any()
        assert (volume.ledger.voxels, volume.ledger.chunks) == (0, 0)

    def test_no_positions_give_an_empty_answer(self, pair):
        volume, _ = pair
        none = torch.zeros(0, len(volume.shape), dtype=torch.int64)
        cube = (volume.channels, *[3] * len(volume.shape))
        assert volume.cubes(none, size=3).shape == (0, *cube)
        assert volume.voxels(none).shape[0] == 0

    def test_read_gives_all(self, pair):
        volume, dense = pair
        assert torch.equal(volume.read(), torch.from_numpy(dense.copy()))

    def test_a_pickled_copy_reads_the_same(self, pair, generator):
        volume, _ = pair
        centers = draw_centers(volume, 9, generator)
        cubes = volume.cubes(centers, size=3)
        copy = pickle.loads(pickle.dumps(volume))
        assert copy.ledger == volume.ledger
        assert torch.equal(copy.cubes(centers, size=3), cubes)

    @pytest.mark.parametrize(
        ("centers", "size", "message"),
        [
            (torch.zeros(4, 9, dtype=torch.int64), 3, r"got \(4, 9\)"),
            (torch.zeros(9, dtype=torch.int64), 3, r"got \(9,\)"),
            (torch.zeros(4, 3), 3, r"got torch.float32; round, then call .long"),
            (torch.zeros(4, 3, dtype=torch.int32), 3, r"int64 positions, got torch.int32"),
            (np.zeros((4, 3), np.int64), 3, r"got ndarray; convert"),
        ],
    )
    def test_refuses_bad_centers(self, pair, centers, size, message):
        with pytest.raises(VolumeError, match=message):
            pair[0].cubes(centers, size=size)

    @pytest.mark.parametrize("size", [0, 2, 8, -3, 3.0, True])
    def test_refuses_sizes_without_a_middle(self, pair, size):
        centers = torch.zeros(1, len(pair[0].shape), dtype=torch.int64)
        with pytest.raises(VolumeError, match="odd size"):
            pair[0].cubes(centers, size=size)

    def test_leaves_the_original_alone(self, pair, tmp_path, generator):
        def digest():
            files = sorted(p for p in tmp_path.rglob("*") if p.is_file())
            return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

        volume, _ = pair
        before = digest()
        cubes = volume.cubes(draw_centers(volume, 9, generator), size=3)
        cubes += 1
        assert digest() == before


def test_the_smallest_volume(generator):
    volume = data.ArrayVolume(torch.full((1, 1, 1), 7.0))
    cube = volume.cubes(torch.zeros(1, 3, dtype=torch.int64), size=3)
    assert cube.sum() == 7
    assert cube[0, 0, 1, 1, 1] == 7


def test_bfloat16_has_no_numpy_and_still_reads():
    values = torch.arange(64.0).reshape(4, 4, 4).bfloat16()
    cubes = data.ArrayVolume(values).cubes(torch.tensor([[1, 1, 1], [0, 3, 3]]), size=3)
    assert torch.equal(cubes[0, 0], values[:3, :3, :3])
    assert cubes[1, 0].float().sum() == values[:2, 2:, 2:].float().sum()
