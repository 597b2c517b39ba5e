"""Volumes seen through an encoder: equal to encoding every voxel, with far less work."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from cpic.bottleneck import chunked, half_sweep
from cpic.data import ArrayVolume
from cpic.nn import CubeEncoder, VolumeEntries
from cpic.tt import IndexSets, Quantics, cross
from cpic.tt._points import all_points
from tests.counting import Dispatched

SHAPE = (6, 5, 7)


class TinyEncoder(torch.nn.Module):
    """Sees 3 voxels along each axis; counts the cubes it gets."""

    def __init__(self, n_dims=4, in_channels=1, n_axes=3):
        super().__init__()
        torch.manual_seed(0)
        self.n_dims, self.in_channels, self.receptive_field = n_dims, in_channels, 3
        self.linear = torch.nn.Linear(in_channels * 3**n_axes, n_dims).double()
        self.calls, self.cubes, self.largest = 0, 0, 0

    def forward(self, cubes):
        self.calls += 1
        self.cubes += len(cubes)
        self.largest = max(self.largest, len(cubes))
        return self.linear(cubes.double().flatten(1)).tanh()


class Scales(TinyEncoder):
    """Sees cubes of three voxels along each axis, dense and with strides of 2 and 5."""

    scales = (1, 2, 5)

    def __init__(self, n_dims=4, in_channels=1):
        super().__init__(n_dims, 3 * in_channels)
        self.in_channels = in_channels


def volumes(generator, n=3, shape=SHAPE, channels=1):
    full = (*shape, channels) if channels > 1 else shape
    arrays = [torch.rand(full, generator=generator, dtype=torch.float64) for _ in range(n)]
    return [ArrayVolume(array, channels=channels) for array in arrays]


def dense(volume, encoder, padded):
    """All vectors `(*padded, n_dims)` of a volume that goes on with zeros."""
    every = all_points(padded)
    with torch.no_grad():
        return encoder(volume.cubes(every, size=3)).view(*padded, -1)


def random_indices(sizes, n_trains, count, generator):
    columns = [torch.randint(0, s, (n_trains, count), generator=generator) for s in sizes]
    return torch.stack(columns, -1)


@pytest.mark.parametrize("padding", ["zero", "encode"])
@pytest.mark.parametrize("order", ["sequential", "interleaved"])
@pytest.mark.parametrize("remember", [False, True])
@pytest.mark.parametrize("n_dims", [4, 3])
def test_equal_to_encoding_every_voxel(padding, order, remember, n_dims, generator):
    batch, encoder = volumes(generator), TinyEncoder(n_dims)
    grid = Quantics(SHAPE, channels=n_dims, order=order)
    entries = VolumeEntries(batch, encoder, grid, padding=padding, remember=remember)
    full = torch.stack([dense(volume, encoder, grid.padded) for volume in batch])
    if padding == "zero":
        inside = torch.zeros(grid.padded, dtype=torch.bool)
        inside[tuple(slice(size) for size in SHAPE)] = True
        full = full * inside[..., None]
    # Three channels are padded to four.
    full = torch.nn.functional.pad(full, (0, 4 - n_dims))
    for _ in range(3):
        indices = random_indices(grid.sizes, 3, 200, generator)
        x, y, z, c = grid.coords(indices).unbind(-1)
        wanted = full[torch.arange(3)[:, None], x, y, z, c]
        torch.testing.assert_close(entries(indices), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("padding", ["zero", "encode"])
def test_an_encoder_of_several_scales_sees_the_cubes_of_all(padding, channels, chunk, generator):
    batch, encoder = volumes(generator, 2, channels=channels), Scales(in_channels=channels)
    grid = Quantics(SHAPE, channels=4)
    entries = VolumeEntries(batch, encoder, grid, padding=padding, chunk=chunk)
    arrays = torch.stack([v.read().view(*SHAPE, channels).movedim(-1, 0) for v in batch])
    padded = torch.nn.functional.pad(arrays, [5, 15] * 3)
    parts = []
    for stride in Scales.scales:
        cubes = padded[(..., *[slice(5 - stride, None)] * 3)]
        for axis in (2, 3, 4):
            cubes = cubes.unfold(axis, 2 * stride + 1, 1)[..., ::stride]
        parts.append(cubes[:, :, :8, :8, :8].movedim(1, 4))
    with torch.no_grad():
        full = encoder(torch.cat(parts, 4).flatten(0, 3)).view(2, 8, 8, 8, 4)
    if padding == "zero":
        full[:, 6:] = full[:, :, 5:] = full[:, :, :, 7:] = 0
    indices = random_indices(grid.sizes, 2, 300, generator)
    x, y, z, c = grid.coords(indices).unbind(-1)
    wanted = full[torch.arange(2)[:, None], x, y, z, c]
    torch.testing.assert_close(entries(indices), wanted, rtol=1e-12, atol=1e-14)


def test_voxels_that_scales_share_are_counted_once(generator):
    (volume,), encoder = volumes(generator, 1, (17, 17, 17)), Scales()
    entries = VolumeEntries([volume], encoder, Quantics((17, 17, 17), channels=4))
    entries.vectors(torch.tensor([[[8, 8, 8]]]))
    assert volume.ledger.voxels == 3 * 27 - 2  # the center is of all three


def test_empty_cubes_are_encoded_once(generator):
    grid = Quantics((9, 9, 9), channels=4)
    encoder, batch = TinyEncoder(), volumes(generator, 2, (9, 9, 9))
    entries = VolumeEntries(batch, encoder, grid, padding="encode")
    beside = torch.tensor([0, 5, 8, 15])
    far = torch.cartesian_prod(torch.arange(10, 14), beside, beside, torch.arange(4))
    far = torch.cat([far, far[:, [1, 2, 0, 3]]]).expand(2, -1, -1)
    values = entries(grid.sites(far))
    assert encoder.cubes == entries.encoded == 2
    nothing = encoder(torch.zeros(1, 1, 3, 3, 3))[0]
    torch.testing.assert_close(values, nothing.repeat(128).expand(2, -1))
    zero = VolumeEntries(batch, TinyEncoder(), grid)
    assert (zero(grid.sites(far)) == 0).all()
    assert zero.encoded == 0


@pytest.mark.parametrize("shape", [SHAPE, (6, 5)])
def test_without_a_grid_multi_indices_are_positions(shape, generator):
    encoder = TinyEncoder(n_dims=3, n_axes=len(shape))
    batch = volumes(generator, 2, shape)
    entries = VolumeEntries(batch, encoder)
    assert entries.sizes == (*shape, 3)
    every = all_points(entries.sizes).expand(2, -1, -1)
    wanted = torch.stack([dense(volume, encoder, shape).flatten() for volume in batch])
    torch.testing.assert_close(entries(every), wanted, rtol=1e-12, atol=0)


def test_without_an_encoder_entries_are_voxels(generator):
    (volume,) = volumes(generator, 1)
    grid = Quantics(SHAPE)
    entries = VolumeEntries([volume], None, grid)
    indices = grid.sites(all_points(SHAPE))[None]
    assert torch.equal(entries(indices)[0], volume.read().flatten())
    contrasts = volumes(generator, 2, channels=2)
    entries = VolumeEntries(contrasts, None)
    values = entries(all_points((*SHAPE, 2)).expand(2, -1, -1))
    assert torch.equal(values, torch.stack([v.read().flatten() for v in contrasts]))


def test_contrasts_reach_the_encoder(generator):
    encoder, batch = TinyEncoder(in_channels=2), volumes(generator, 2, channels=2)
    entries = VolumeEntries(batch, encoder)
    values = entries(all_points(entries.sizes).expand(2, -1, -1))
    wanted = torch.stack([dense(volume, encoder, SHAPE).flatten() for volume in batch])
    torch.testing.assert_close(values, wanted, rtol=1e-12, atol=0)


def test_a_batch_is_one_call_and_equals_single_volumes(generator):
    batch, encoder = volumes(generator), TinyEncoder()
    grid = Quantics(SHAPE, channels=4)
    indices = random_indices(grid.sizes, 3, 50, generator)
    together = VolumeEntries(batch, encoder, grid)(indices)
    assert encoder.calls == 1
    alone = [
        VolumeEntries([v], encoder, grid)(i[None]) for v, i in zip(batch, indices, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=0)


def test_positions_are_encoded_once(generator):
    batch, encoder = volumes(generator, 2), TinyEncoder()
    grid = Quantics(SHAPE, channels=4)
    entries = VolumeEntries(batch, encoder, grid)
    coords = torch.cartesian_prod(
        torch.tensor([1, 2, 4]), *[torch.tensor([0, 3])] * 2, torch.arange(4)
    )
    indices = grid.sites(coords).repeat(2, 1).expand(2, -1, -1)
    entries(indices)
    assert (entries.asked, entries.encoded, encoder.cubes) == (2 * 96, 2 * 12, 2 * 12)
    assert [v.ledger.asked for v in batch] == [12 * 27] * 2
    entries(indices)
    assert (entries.asked, entries.encoded) == (4 * 96, 4 * 12)


def test_memory_encodes_new_positions_only(generator):
    batch, encoder = volumes(generator, 2), TinyEncoder()
    grid = Quantics(SHAPE, channels=4)
    entries = VolumeEntries(batch, encoder, grid, remember=True)
    first, second = (random_indices(grid.sizes, 2, 40, generator) for _ in range(2))
    entries(first)
    once = entries.encoded
    entries(first)
    assert entries.encoded == once
    entries(torch.cat([first, second], 1))
    both = VolumeEntries(batch, TinyEncoder(), grid)
    both(torch.cat([first, second], 1))
    assert entries.encoded == both.encoded == encoder.cubes


def test_memory_is_emptied_when_it_no_longer_holds(generator):
    batch, encoder = volumes(generator, 1), TinyEncoder()
    entries = VolumeEntries(batch, encoder, remember=True)
    indices = random_indices(entries.sizes, 1, 20, generator)
    with torch.no_grad():
        assert not entries(indices).requires_grad
    before = entries(indices)
    assert before.requires_grad
    with torch.no_grad():
        encoder.linear.weight += 1
    after = entries(indices)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, VolumeEntries(batch, encoder)(indices))
    count = entries.encoded
    entries.forget()
    entries(indices)
    assert entries.encoded > count


def gradients(entries, encoder, sets):
    train = half_sweep(entries, sets).train
    return torch.autograd.grad(train.inner(train).sum(), list(encoder.parameters()))


@pytest.mark.parametrize(
    "options", [{"chunk": 7}, {"remember": True}, {"remember": True, "chunk": 5}]
)
def test_gradients_in_chunks_and_from_memory_are_those_of_one_call(options, generator):
    batch, encoder = volumes(generator, 2), TinyEncoder()
    grid = Quantics(SHAPE, channels=4)
    sets = IndexSets.random(grid.sizes, 3, n_trains=2, generator=generator)
    wanted = gradients(VolumeEntries(batch, encoder, grid), encoder, sets)
    encoder.largest = 0
    found = gradients(VolumeEntries(batch, encoder, grid, **options), encoder, sets)
    assert encoder.largest <= options.get("chunk", 10**9)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)
    outer = gradients(chunked(VolumeEntries(batch, encoder, grid), 11), encoder, sets)
    torch.testing.assert_close(outer, wanted, rtol=1e-8, atol=1e-10)


class Owner(torch.nn.Module):
    """Gives its encoder's parameters to `torch.func`."""

    def __init__(self, entries):
        super().__init__()
        self.encoder, self.entries = entries.encoder, entries

    def forward(self, indices):
        return self.entries(indices)


def test_gradient_is_that_of_finite_differences(generator):
    owner = Owner(VolumeEntries(volumes(generator, 2), TinyEncoder()))
    indices = random_indices(owner.entries.sizes, 2, 12, generator)

    def values(weight):
        return torch.func.functional_call(owner, {"encoder.linear.weight": weight}, (indices,))

    weight = owner.encoder.linear.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(values, (weight,))
    assert (torch.autograd.grad(values(weight).sum(), weight)[0] != 0).all()


def test_cross_and_half_sweep_take_it(generator):
    rows = torch.linspace(0, 1, 16)
    batch = [ArrayVolume((a * rows)[:, None, None] + rows[:, None] * rows) for a in (1.0, 2.0)]
    encoder = CubeEncoder(2, variant="fast")
    grid = Quantics((16, 16, 16), channels=2)
    entries = VolumeEntries(batch, encoder, grid, remember=True)
    with torch.no_grad():
        found = cross(entries, grid.sizes, n_trains=2, rank=8, generator=generator)
    assert float(found.error.max()) < 1e-2
    assert entries.encoded < entries.asked / 4
    train = half_sweep(entries, found.sets).train
    assert train.dtype == torch.float64
    train.norm().sum().backward()
    assert all((p.grad != 0).any() for p in encoder.parameters())


def test_integer_volumes_and_float32_encoder_give_float64_entries(generator):
    array = torch.randint(0, 200, (10, 10, 10), generator=generator, dtype=torch.int16)
    entries = VolumeEntries([ArrayVolume(array)], CubeEncoder(2))
    indices = random_indices(entries.sizes, 1, 9, generator)
    assert entries(indices).dtype == torch.float64
    single = VolumeEntries([ArrayVolume(array)], CubeEncoder(2), dtype=torch.float32)
    assert single(indices).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"volumes": []}, "got none"),
        (
            {"volumes": [ArrayVolume(torch.zeros(4, 4, 4)), ArrayVolume(torch.zeros(4, 4, 5))]},
            "one shape",
        ),
        ({"grid": Quantics((4, 4, 4), channels=2)}, "channels=4"),
        ({"grid": Quantics((4, 4, 8), channels=4)}, "needs a grid for shape"),
        ({"encoder": TinyEncoder(in_channels=2)}, "1 contrasts"),
        ({"encoder": torch.nn.Flatten()}, "integer `n_dims`"),
        ({"padding": "mirror"}, "mirror"),
        ({"chunk": 0}, "chunk"),
    ],
)
def test_bad_input_is_one_sentence(change, words):
    options = {"volumes": [ArrayVolume(torch.zeros(4, 4, 4))], "encoder": TinyEncoder(), **change}
    with pytest.raises(ValueError, match=words):
        VolumeEntries(options.pop("volumes"), options.pop("encoder"), **options)


@pytest.mark.parametrize("remember", [False, True])
def test_one_channel_and_no_multi_index(remember, generator):
    batch, encoder = volumes(generator, 2, (5, 1, 3)), TinyEncoder(n_dims=1)
    grid = Quantics((5, 1, 3))
    entries = VolumeEntries(batch, encoder, grid, remember=remember)
    assert entries(torch.zeros(2, 0, grid.n_sites, dtype=torch.int64)).shape == (2, 0)
    every = all_points((5, 1, 3))
    wanted = torch.stack([dense(volume, encoder, (5, 1, 3)).flatten() for volume in batch])
    found = entries(grid.sites(every).expand(2, -1, -1))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def test_bad_indices_are_one_sentence():
    entries = VolumeEntries([ArrayVolume(torch.zeros(4, 4, 4))], TinyEncoder())
    with pytest.raises(ValueError, match=r"\(1, n, 4\)"):
        entries(torch.zeros(2, 3, 4, dtype=torch.int64))
    with pytest.raises(IndexError, match="below the sizes"):
        entries(torch.full((1, 1, 4), 4))


def work_of_a_call(n_volumes, channels, generator):
    encoder = TinyEncoder(in_channels=channels)
    batch = volumes(generator, n_volumes, (12, 12, 12), channels)
    grid = Quantics((12, 12, 12), channels=4)
    entries = VolumeEntries(batch, encoder, grid, remember=True)
    for _ in range(2):
        indices = random_indices(grid.sizes, n_volumes, 60, generator)
        with torch.no_grad(), Dispatched() as work:
            entries(indices)
    with Dispatched() as mapped:
        grid.coords(indices)
    return work.operations - mapped.operations, work.reads - mapped.reads


def test_operations_do_not_grow_with_the_batch_or_the_contrasts(generator):
    few = work_of_a_call(2, 1, generator)
    assert work_of_a_call(6, 1, generator) == few
    # Contrasts lie last in memory, which the encoder's `flatten` copies: one more, for any number.
    contrasts = work_of_a_call(2, 4, generator)
    assert contrasts[0] <= few[0] + 1
    assert contrasts[1] == few[1]
    assert few[0] <= 30
    assert few[1] <= 2


class FromFarAway(TorchFunctionMode):
    """Tensors on `meta` stand for those of a device; what is copied back is 0 here."""

    def __init__(self):
        super().__init__()
        self.back = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.to and args[0].is_meta and args[1] == torch.device("cpu"):
            self.back += 1
            return torch.zeros(args[0].shape, dtype=args[2])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("remember", [False, True])
def test_indices_on_the_cpu_and_an_encoder_elsewhere(remember, generator):
    """No card is needed: operations on `meta` refuse tensors of the CPU as those of a card do."""
    grid = Quantics(SHAPE, channels=4)
    encoder = TinyEncoder().to("meta")
    entries = VolumeEntries(volumes(generator, 2), encoder, grid, remember=remember)
    outside = grid.sites(torch.tensor([[[7, 7, 7, 0]]] * 2))
    some, others = (random_indices(grid.sizes, 2, 40, generator) for _ in range(2))
    with FromFarAway() as spy:
        # Nothing is new in the third call, and in the first one nothing is encoded.
        for indices in (outside, some, some, torch.cat([some, others], 1), outside):
            values = entries(indices)
            assert values.device.type == "cpu"
            assert values.shape == indices.shape[:2]
    assert spy.back == (4 if remember else 3)
