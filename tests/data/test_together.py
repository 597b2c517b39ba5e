"""Volumes read in one call: what each says alone, for the work of one."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from cpic import data
from cpic._errors import VolumeError
from cpic.data.stores import ChunkCache
from tests.counting import Dispatched
from tests.data import test_conformance
from tests.data.test_conformance import SHAPE, Lookup, stored


class Own:
    """Only what the protocol asks for, and its own `cubes`."""

    def __init__(self, values):
        self._volume = data.ArrayVolume(values)
        self.shape, self.channels, self.dtype = self._volume.shape, 1, self._volume.dtype
        self.ledger = self._volume.ledger

    def cubes(self, centers, *, size):
        return self._volume.cubes(centers, size=size)

    def voxels(self, coords):
        return self._volume.voxels(coords)

    def read(self):
        return self._volume.read()


class Doubled(data.ArrayVolume):
    """Overrides `cubes`, which must be seen."""

    def cubes(self, centers, *, size):
        return 2 * super().cubes(centers, size=size)


def arrays(folder, n):
    return [data.ArrayVolume(stored(seed=k)) for k in range(n)]


def formulas(folder, n):
    function = Lookup(stored())
    return [data.FormulaVolume(function, SHAPE, dtype=torch.float32) for _ in range(n)]


def maps(folder, n):
    for k in range(n):
        np.save(folder / f"{k}.npy", stored(seed=k))
    return [data.open_volume(folder / f"{k}.npy") for k in range(n)]


def scaled(folder, n):
    paths = []
    for k in range(n):
        (folder / str(k)).mkdir()
        values = stored(dtype=np.int16, seed=k)
        paths.append(test_conformance.nifti(folder / str(k), values, scale=(0.5 + k, -3.0)))
    return [data.open_volume(path) for path in paths]


def stores(folder, n, **options):
    for k in range(n):
        if not (folder / f"{k}.zarr").exists():
            data.save_zarr(stored(seed=k), folder / f"{k}.zarr", chunks=(4, 3, 5))
    return [data.ZarrVolume(folder / f"{k}.zarr", **options) for k in range(n)]


def cached(folder, n):
    return stores(folder, n, cache=ChunkCache(2**20))


def crowded(folder, n):
    return stores(folder, n, cache=5 * 4 * 4 * 3 * 5)


def flipped(folder, n):
    views = [(), (0,), (1, 2), (0, 1, 2)]
    return [
        data.FlippedVolume(volume, axes=views[k % 4]) for k, volume in enumerate(stores(folder, n))
    ]


def twice_flipped(folder, n):
    (volume,) = stores(folder, 1)
    return [data.FlippedVolume(volume, axes=[k % 3]) for k in range(n)]


def stacked(folder, n, n_parts=2):
    volumes = arrays(folder, n * n_parts)
    return [data.StackedVolume(volumes[k::n]) for k in range(n)]


def stacked_of_all(folder, n):
    wide = stored((*SHAPE, 2), dtype=np.uint8)
    return [
        data.StackedVolume([array, data.ArrayVolume(wide + k, channels=2), store, own])
        for k, (array, store, own) in enumerate(
            zip(arrays(folder, n), stores(folder, n), own_ones(folder, n), strict=True)
        )
    ]


def own_ones(folder, n):
    return [Own(stored(seed=k)) for k in range(n)]


def overridden(folder, n):
    return [Doubled(stored(seed=k)) for k in range(n)]


def mixed(folder, n):
    makers = [arrays, cached, formulas, own_ones, flipped, overridden]
    return [makers[k % 6](folder, n)[k] for k in range(n)]


ALL = [
    arrays,
    formulas,
    maps,
    scaled,
    stores,
    cached,
    crowded,
    flipped,
    twice_flipped,
    stacked,
    stacked_of_all,
    own_ones,
    overridden,
    mixed,
]


def draw(n_volumes, n, generator, shape=SHAPE):
    owner = torch.randint(0, n_volumes, (n,), generator=generator)
    columns = [torch.randint(-4, k + 4, (n,), generator=generator) for k in shape]
    return owner, torch.stack(columns, 1)


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("make", ALL)
def test_equal_to_one_volume_after_the_other_and_so_are_the_ledgers(
    make, size, generator, tmp_path
):
    together = make(tmp_path, 7)
    alone = pickle.loads(pickle.dumps(together))
    owner, centers = draw(len(together), 150, generator)
    owner[owner == 2] = 1  # of one volume nothing is asked
    found = data.read_cubes(together, owner, centers, size=size)
    for k, volume in enumerate(alone):
        mine = owner == k
        distinct = centers[mine].unique(dim=0) if isinstance(volume, Own) else centers[mine]
        if len(distinct):
            volume.cubes(distinct, size=size)
        expected = pickle.loads(pickle.dumps(volume)).cubes(centers[mine], size=size)
        assert torch.equal(found[mine], expected.to(found.dtype))
        asked = together[k].ledger
        if isinstance(volume, Own | Doubled):
            assert asked.voxels == volume.ledger.voxels
        elif make not in (cached, mixed):
            assert asked == volume.ledger


SCALES = (1, 3, 8)


def dilated_twin(dense, centers, size, channels):
    """Cubes of all scales, every voxel of a padded array by itself; and which voxels they have."""
    dense = dense if channels > 1 else dense[..., None]
    shape, found, read = dense.shape[:-1], [], set()
    for stride in SCALES:
        steps = torch.cartesian_prod(*[stride * (torch.arange(size) - size // 2)] * len(shape))
        at = centers[:, None] + steps
        inside = ((at >= 0) & (at < torch.tensor(shape))).all(-1)
        values = dense[tuple(at.clamp_min(0).minimum(torch.tensor(shape) - 1).unbind(-1))]
        values = torch.where(inside[..., None], values, 0).movedim(-1, 1)
        found.append(values.unflatten(2, [size] * len(shape)))
        read |= set(map(tuple, at[inside].tolist()))
    return torch.cat(found, 1), read


def dicoms(folder, n):
    made = []
    for k in range(n):
        (folder / f"d{k}").mkdir()
        made.append(test_conformance.make_dicom(folder / f"d{k}")[0])
    return made


@pytest.mark.parametrize("make", [*ALL, dicoms])
def test_several_scales_equal_the_dense_twin_and_voxels_are_counted_once(make, generator, tmp_path):
    volumes = make(tmp_path, 4)
    owner, centers = draw(4, 60, generator)
    owner[owner == 2] = 1
    twins = [volume.read() * (2 if isinstance(volume, Doubled) else 1) for volume in volumes]
    for volume in volumes:
        volume.ledger.reset()
    found = data.read_cubes(volumes, owner, centers, size=5, strides=SCALES)
    for k, volume in enumerate(volumes):
        mine = owner == k
        twin, read = dilated_twin(twins[k], centers[mine], 5, volume.channels)
        assert torch.equal(found[mine], twin.to(found.dtype))
        assert volume.ledger.voxels == len(read)
        if make is stores:  # a chunk that a cube steps over is not loaded
            assert volume.ledger.chunks == len({(x // 4, y // 3, z // 5) for x, y, z in read})
        if not isinstance(volume, Own | Doubled):
            assert volume.ledger.asked == 3 * 125 * int(mine.sum())


def test_a_cube_of_stride_one_is_what_it_is_alone(generator):
    volumes = arrays(None, 3)
    owner, centers = draw(3, 50, generator)
    alone = data.read_cubes(volumes, owner, centers, size=3)
    both = data.read_cubes(volumes, owner, centers, size=3, strides=[4, 1])
    assert torch.equal(both[:, 1:], alone)


@pytest.mark.parametrize("read_all", [False, True])
@pytest.mark.parametrize("make", [flipped, stacked, stacked_of_all])
def test_a_view_counts_the_bytes_and_chunks_of_its_parts(make, read_all, generator, tmp_path):
    views = make(tmp_path, 3)
    if read_all:
        views[0].read()
    else:
        data.read_cubes(views, *draw(3, 30, generator), size=3)
    for view in views:
        parts = view.parts if hasattr(view, "parts") else [view.volume]
        total = sum((part.ledger for part in parts), data.Ledger())
        assert (view.ledger.bytes, view.ledger.chunks) == (total.bytes, total.chunks)
    assert views[0].ledger.bytes > 0


def test_types_are_promoted_as_by_torch(generator):
    volumes = [data.ArrayVolume(stored(dtype=kind)) for kind in (np.uint8, np.int16, np.float32)]
    owner, centers = draw(3, 20, generator)
    assert data.read_cubes(volumes, owner, centers, size=3).dtype == torch.float32


def test_a_bad_voxel_is_of_the_volume_that_has_it():
    values = stored()
    values[5, 5, 5] = np.nan
    at = torch.tensor([[5, 5, 5]]).expand(2, 3)
    volumes = [data.ArrayVolume(stored()), data.ArrayVolume(values)]
    with pytest.raises(VolumeError, match=r"has 1 NaN voxels among the 27 read"):
        data.read_cubes(volumes, torch.tensor([0, 1]), at, size=3)
    volumes[1] = data.ArrayVolume(values, nan=7.0)
    found = data.read_cubes(volumes, torch.tensor([0, 1]), at, size=1)
    assert found.flatten().tolist() == [stored()[5, 5, 5], 7.0]


def test_two_threads_count_what_one_counts(tmp_path, generator):
    owner, centers = draw(4, 60, generator)
    volumes = stores(tmp_path, 4)
    data.read_cubes(volumes, owner, centers, size=3)
    once = [volume.ledger + data.Ledger() for volume in volumes]
    for volume in volumes:
        volume.ledger.reset()
    with ThreadPoolExecutor(4) as pool:
        reads = [pool.submit(data.read_cubes, volumes, owner, centers, size=3) for _ in range(8)]
        assert all(torch.equal(read.result(), reads[0].result()) for read in reads)
    for volume, count in zip(volumes, once, strict=True):
        assert volume.ledger.voxels == 8 * count.voxels
        assert volume.ledger.chunks == 8 * count.chunks


def counted(volumes, generator):
    owner, centers = draw(len(volumes), 200, generator)
    data.read_cubes(volumes, owner, centers, size=5)
    with Dispatched() as work:
        data.read_cubes(volumes, owner, centers, size=5)
    return work.operations, work.reads


@pytest.mark.parametrize("make", [arrays, formulas, maps, stores, cached, flipped, stacked])
def test_operations_do_not_grow_with_the_volumes(make, generator, tmp_path):
    few, many = counted(make(tmp_path, 2), generator), counted(make(tmp_path, 6), generator)
    assert few == many
    assert few[0] <= 25
    assert few[1] <= 1


def test_operations_do_not_grow_with_the_contrasts(generator, tmp_path):
    few, many = (counted(stacked(tmp_path, 3, n), generator) for n in (1, 4))
    assert few == many


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"volumes": []}, "got none"),
        (
            {"volumes": [data.ArrayVolume(torch.zeros(2, 2)), data.ArrayVolume(torch.zeros(2, 3))]},
            "one shape",
        ),
        ({"owner": torch.tensor([0, 2])}, r"from 0 to 1 .* got 2 from 0 to 2"),
        ({"owner": torch.tensor([-1, 0])}, r"from -1 to 0"),
        ({"owner": torch.tensor([0])}, "for each of 2 centers, got 1"),
        ({"owner": torch.tensor([0.0, 1.0])}, "int64 tensor with the volume of each cube"),
        ({"owner": [0, 1]}, "got list"),
        ({"centers": torch.zeros(2, 2, dtype=torch.int64)}, "3 coordinates"),
        ({"centers": torch.zeros(2, 3)}, "int64 positions"),
        ({"size": 2}, "odd size"),
        ({"strides": ()}, r"one or more different integers from 1 to 65536, got \(\)"),
        ({"strides": (0, 1)}, r"got \(0, 1\)"),
        ({"strides": (2, 2)}, r"got \(2, 2\)"),
        ({"strides": (1.0,)}, r"got \(1.0,\)"),
        ({"strides": 2}, "got 2"),
        ({"strides": (10**20,)}, "from 1 to 65536"),
    ],
)
def test_bad_input_is_one_sentence(change, words):
    given = {
        "volumes": [data.ArrayVolume(torch.zeros(4, 4, 4)) for _ in range(2)],
        "owner": torch.tensor([0, 1]),
        "centers": torch.zeros(2, 3, dtype=torch.int64),
        "size": 3,
        **change,
    }
    with pytest.raises(VolumeError, match=words):
        data.read_cubes(**given)


def test_volumes_of_any_extent_together(generator):
    shape = (2**20, 2**20, 2**21)
    volumes = [data.FormulaVolume(lambda x, y, z: (x + y + z).double(), shape) for _ in range(9)]
    owner, centers = draw(9, 40, generator, shape)
    inside = ((centers >= 0) & (centers < torch.tensor(shape))).all(1)
    for strides in ((1,), (1, 2)):
        for volume in volumes:
            volume.ledger.reset()
        found = data.read_cubes(volumes, owner, centers, size=5, strides=strides)
        assert torch.equal(found[inside, -1, 2, 2, 2], centers[inside].sum(1).double())
        read = sum(volume.ledger.voxels for volume in volumes)
        assert 30 * 125 * len(strides) - 30 * 27 <= read <= 40 * 125 * len(strides)
