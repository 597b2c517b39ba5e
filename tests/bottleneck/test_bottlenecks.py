"""One interface for all bottlenecks: K trains out of entries, with gradients, by name."""

import itertools

import pytest
import torch

from cpic.bottleneck import (
    BOTTLENECKS,
    CP,
    TTSVD,
    BlockTT,
    Bottleneck,
    Identity,
    MatrixSVD,
    bottleneck,
    chunked,
)
from cpic.tt import Quantics, dense_entries, tt_svd

SIZES = (3, 4, 2, 3)
EVERY = pytest.mark.parametrize("name", list(BOTTLENECKS))
DENSE = [name for name in BOTTLENECKS if name != "cross"]


def make(name, sizes=SIZES, *, rank=3, n_trains=2, **options):
    generator = torch.Generator().manual_seed(0)
    return bottleneck(name, sizes, rank=rank, n_trains=n_trains, generator=generator, **options)


def noise(generator, sizes=SIZES, n_trains=2):
    return torch.randn(n_trains, *sizes, generator=generator, dtype=torch.float64)


def products(sizes, rank, generator, n_trains=2):
    """Tensors of CP rank `rank`, flat."""
    full = torch.ones(n_trains, rank, 1, dtype=torch.float64)
    for n in sizes:
        factor = torch.randn(n_trains, rank, n, generator=generator, dtype=torch.float64)
        full = (full[..., None] * factor[:, :, None]).flatten(2)
    return full.sum(1)


@EVERY
def test_a_product_of_vectors_is_kept_exactly(name, generator):
    full = products(SIZES, 1, generator)
    train = make(name)(dense_entries(full.view(2, *SIZES)))
    assert train.n_trains == 2
    assert (train.full().flatten(1) - full).abs().max() <= 1e-8 * full.abs().max()


@EVERY
@pytest.mark.parametrize("sizes", [(6,), (2, 3), (2,) * 6, (4, 4, 4), (5, 1, 2)])
def test_any_sizes_and_any_number_of_trains(name, sizes, generator):
    if name == "matrix_svd" and len(sizes) == 1:
        return
    for n_trains in (1, 3):
        full = noise(generator, sizes, n_trains)
        train = make(name, sizes, n_trains=n_trains)(dense_entries(full))
        assert train.full().shape[0] == n_trains
        assert train.full().numel() == full.numel()
        assert torch.isfinite(train.full()).all()


@EVERY
def test_gradients_equal_finite_differences(name, generator):
    full = noise(generator).requires_grad_()
    made = make(name, **({"sweeps": 3} if name == "cp" else {}))
    if name == "cross":
        for _ in range(4):
            made(dense_entries(full.detach()))
        made.eval()
    assert torch.autograd.gradcheck(lambda t: made(dense_entries(t)).full(), full, fast_mode=True)


@pytest.mark.parametrize("gradient", ["subspace", "original", "taylor"])
@pytest.mark.parametrize("name", ["tt_svd", "block_tt", "matrix_svd"])
def test_every_gradient_of_the_basis_is_right_where_gaps_are_wide(name, gradient, generator):
    full = noise(generator).requires_grad_()
    weights = noise(generator).flatten()
    slopes = [
        torch.autograd.grad(
            (
                make(name, rank=2, gradient=one)(dense_entries(full)).full().flatten() * weights
            ).sum(),
            full,
        )[0]
        for one in (gradient, "original")
    ]
    bound = 1e-2 if gradient == "taylor" else 1e-9
    assert (slopes[0] - slopes[1]).norm() <= bound * slopes[1].norm()


def test_a_detached_basis_projects_the_gradient(generator):
    full = noise(generator).requires_grad_()
    weights = noise(generator)
    train = make("matrix_svd", rank=2, gradient="detached")(dense_entries(full))
    (slope,) = torch.autograd.grad((train.full().flatten() * weights.flatten()).sum(), full)
    frame = train.cores[0][:, 0].detach()
    projected = frame @ (frame.mT @ weights.reshape(2, *train.sizes))
    assert torch.allclose(slope.flatten(), projected.flatten())


def test_equal_singular_values_that_are_kept_do_no_harm():
    values = torch.tensor([1.0, 1.0, 1.0, 0.1], dtype=torch.float64)
    full = torch.diag(values)[None].requires_grad_()
    weights = torch.arange(16.0, dtype=torch.float64).view(1, 4, 4)
    train = TTSVD((4, 4), rank=3)(dense_entries(full))
    (slope,) = torch.autograd.grad((train.full() * weights).sum(), full)
    step = torch.zeros(1, 4, 4, dtype=torch.float64)
    step[0, 0, 3], step[0, 1, 2] = 1.0, 0.5
    ahead, behind = (
        (tt_svd(full.detach() + h * step, max_rank=3).full() * weights).sum() for h in (1e-6, -1e-6)
    )
    assert torch.isclose((slope * step).sum(), (ahead - behind) / 2e-6, rtol=1e-7)


@pytest.mark.parametrize("sizes", [(4, 4, 4), (2,) * 6])
def test_tt_svd_is_that_of_the_dense_tensor(sizes, generator):
    full = noise(generator, sizes)
    for options in ({"rank": 3}, {"rank": 99, "tol": 0.3}):
        ours = make("tt_svd", sizes, **options)(dense_entries(full))
        theirs = tt_svd(full, tol=options.get("tol"), max_rank=options["rank"])
        assert ours.ranks == theirs.ranks
        assert torch.allclose(ours.full(), theirs.full(), atol=1e-12)


def test_sizes_choose_between_bits_fours_and_axes(generator):
    volume = noise(generator, (16, 16))
    for base, n_sites in ((2, 8), (4, 4)):
        grid = Quantics((16, 16), base=base)
        made = TTSVD(grid.sizes, rank=16, n_trains=2)
        train = made(dense_entries(grid.split(volume)))
        assert train.n_sites == n_sites
        assert torch.allclose(grid.join(train.full()), volume)


def test_block_trains_share_all_cores_but_the_first(generator):
    full = noise(generator, (3, 4, 5), n_trains=4)
    train = make("block_tt", (3, 4, 5), rank=2, n_trains=4)(dense_entries(full))
    for core in train.cores[1:]:
        assert all(torch.equal(core[0], one) for one in core)
    whole = tt_svd(full[None], max_rank=2).full()[0]
    assert torch.allclose(train.full(), whole, atol=1e-12)


def test_matrix_svd_is_the_best_matrix_of_its_rank(generator):
    full = noise(generator)
    for split in (1, 2, 3):
        train = MatrixSVD(SIZES, rank=2, n_trains=2, split=split)(dense_entries(full))
        matrix = full.reshape(2, *train.sizes)
        rest = torch.linalg.svdvals(matrix)[:, 2:].norm(dim=-1)
        assert torch.allclose((train.full() - matrix).flatten(1).norm(dim=-1), rest)
    assert MatrixSVD(SIZES).split == 2  # 12 times 6


def test_cp_finds_sums_of_products_and_is_a_diagonal_train(generator):
    sizes = (2,) * 8
    full = products(sizes, 2, generator).view(2, *sizes)
    train = make("cp", sizes, rank=2, sweeps=30)(dense_entries(full))
    assert (train.full() - full).norm() <= 1e-7 * full.norm()
    off = ~torch.eye(2, dtype=torch.bool)
    assert all((core.transpose(2, 3)[:, off] == 0).all() for core in train.cores[1:-1])


def test_cp_descends_from_sweep_to_sweep(generator):
    full = noise(generator, (4, 5, 6))
    errors = [
        (make("cp", (4, 5, 6), sweeps=sweeps)(dense_entries(full)).full() - full).norm().item()
        for sweeps in range(1, 9)
    ]
    assert all(b <= a * (1 + 1e-9) for a, b in itertools.pairwise(errors))


@EVERY
def test_each_tensor_is_treated_as_if_alone(name, generator):
    if name in ("block_tt", "cross"):  # one shares its cores, the other has a state for each
        return
    full = noise(generator)
    together = make(name)(dense_entries(full)).full()
    for k in range(2):
        alone = make(name, n_trains=1)(dense_entries(full[k : k + 1])).full()
        assert torch.allclose(together[k], alone[0], atol=1e-9)


@EVERY
def test_deficient_tensors_have_finite_trains_and_gradients(name, generator):
    whole, ones = noise(generator, n_trains=1), torch.ones(1, *SIZES, dtype=torch.float64)
    full = torch.cat([0 * ones, ones, 1e-200 * whole, 1e150 * whole, whole]).requires_grad_()
    train = make(name, n_trains=5)(dense_entries(full))
    (slope,) = torch.autograd.grad(train.full().sum(), full)
    assert torch.isfinite(slope).all()
    assert all(torch.isfinite(core).all() for core in train.cores)
    assert (train.full()[0] == 0).all()


@EVERY
def test_a_model_learns_through_each(name, generator):
    """Entries of a small network are pulled towards a tensor of rank one."""
    wanted = products(SIZES, 1, generator).view(2, *SIZES)
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2)
    ).double()
    made, losses = make(name, **({"sweeps": 5} if name == "cp" else {})), []
    model = torch.nn.ModuleDict({"net": net, "bottleneck": made})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def entries(indices):
        return (
            net(indices[0].double()).T
            if len(indices) == 1
            else torch.stack([net(one.double())[:, k] for k, one in enumerate(indices)])
        )

    for _ in range(40):
        train = made(chunked(entries, 50))
        loss = (train.full().flatten() - wanted.flatten()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("name", DENSE)
def test_too_many_entries_are_refused_before_they_are_read(name):
    made = make(name, (2,) * 30)
    with pytest.raises(ValueError, match="reads every entry, at most 4194304"):
        made(lambda i: pytest.fail("was asked"))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tucker", {}, "out of 'cross', 'tt_svd'"),
        ("cp", {"generator": None}, "CP needs a generator"),
        ("cross", {"generator": None}, "Cross needs a generator"),
        ("cp", {"sweeps": 0}, "sweeps >= 1"),
        ("matrix_svd", {"split": 4}, "split between 1 and 3"),
        ("matrix_svd", {"sizes": (4,)}, "at least two modes"),
        ("tt_svd", {"rank": 0}, "rank >= 1"),
        ("tt_svd", {"n_trains": 0}, "n_trains >= 1"),
        ("tt_svd", {"tol": -1}, "tol >= 0"),
        ("tt_svd", {"gradient": "magic"}, "magic"),
        ("identity", {"sizes": (3, 0)}, "at least one mode"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(name, options, message, generator):
    options = {"sizes": SIZES, "generator": generator, **options}
    with pytest.raises(ValueError, match=message):
        bottleneck(name, **options)


def test_options_of_a_gradient_without_any_are_refused():
    with pytest.raises(TypeError, match="has no options"):
        TTSVD(SIZES, degree=3)


@EVERY
def test_entries_that_are_not_finite_are_refused(name):
    with pytest.raises(ValueError, match="finite values"):
        make(name)(lambda i: torch.full(i.shape[:-1], torch.nan))


@EVERY
def test_single_precision_stays_single(name, generator):
    made = make(name)
    train = made(dense_entries(products(SIZES, 1, generator).view(2, *SIZES).float()))
    assert train.dtype == torch.float32


def test_the_base_names_what_is_missing():
    with pytest.raises(TypeError, match="forward"):
        Bottleneck((2, 2))


def test_only_the_start_of_cp_is_stored_with_a_model():
    assert not any(made.state_dict() for made in (TTSVD(SIZES), BlockTT(SIZES), Identity(SIZES)))
    start, again = make("cp"), CP(SIZES, rank=3, generator=torch.Generator().manual_seed(9))
    again.load_state_dict(start.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(start.buffers(), again.buffers(), strict=True))
