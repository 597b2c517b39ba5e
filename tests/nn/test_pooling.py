"""Pooling layers against published values, dense twins and finite differences."""

import functools

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from cpic.linalg import sqrtm
from cpic.nn.pooling import (
    REPRESENTATIONS,
    Bilinear,
    CompactBilinear,
    CovariancePool,
    DecorrelatedBatchNorm,
    GlobalAverage,
    MatrixPower,
    Reduction,
    ScaledRoot,
    SecondOrder,
    representation,
    transfer_statistics,
    triangle,
)

WIDE = torch.float64
MAPS = torch.tensor([[[1.0, 2, 0, 1], [0, 1, 3, 1], [2, 0, 1, 1]]], dtype=WIDE)
GOLDEN = {
    "SVD_Original": (0.521065, -0.373455, -0.298367, 0.998447, -0.226130, 0.599869),
    "SVD_Lyapunov": (0.521065, -0.373455, -0.298367, 0.998447, -0.226130, 0.599869),
    "SEB": (0.782957, -0.561157, -0.448328, 1.500275, -0.339784, 0.901368),
    "MPNCOV": (0.499830, -0.386020, -0.315393, 0.991013, -0.236204, 0.586218),
}


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=WIDE)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_vectors(name):
    found = representation(name, 3)(MAPS.view(1, 3, 2, 2))
    assert_close(found, torch.tensor([GOLDEN[name]], dtype=WIDE), atol=6e-7, rtol=0)


@pytest.mark.parametrize("name", ["SVD_Original", "SVD_Trunc", "SVD_Pade", "SVD_Newton"])
def test_golden_gradients_at_the_maps(name):
    maps = MAPS.clone().requires_grad_()
    representation(name, 3)(maps).sum().backward()
    expected = [
        [0.155894, 0.253446, 0.181984, -0.591323],
        [-0.036374, 0.043895, 0.385441, -0.392962],
        [0.281285, -0.061429, 0.262253, -0.482109],
    ]
    slack = 0.02 if name == "SVD_Newton" else 6e-7
    assert_close(maps.grad[0], torch.tensor(expected, dtype=WIDE), atol=slack, rtol=slack)


def test_covariance_is_that_of_the_centering_matrix(generator):
    maps = draw(generator, 2, 5, 4, 3)
    x, m = maps.flatten(2), 12
    centering = (torch.eye(m, dtype=WIDE) - torch.ones(m, m, dtype=WIDE) / m) / m
    found = CovariancePool()(maps)
    assert_close(found, x @ centering @ x.mT, rtol=0, atol=1e-14)
    given = draw(generator, 2, 5, 5)
    maps.requires_grad_()
    (grad,) = torch.autograd.grad(CovariancePool()(maps), maps, given)
    assert_close(grad.flatten(2), (given + given.mT) @ x @ centering)


# By torch itself, when forward derivatives are used for the first time.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("masked", [False, True])
def test_covariances_have_derivatives_of_any_order_and_kind(masked, generator):
    mask = torch.tensor([[True, True, False, True], [True] * 4]) if masked else None
    pool = CovariancePool(check=False)
    maps = draw(generator, 2, 3, 4).requires_grad_()
    # Functions of the covariance that do not treat both triangles alike.
    weight = draw(generator, 3, 3)
    assert gradcheck(lambda x: weight * pool(x, mask), maps, check_forward_ad=True)
    assert gradgradcheck(lambda x: weight * pool(x, mask), maps)
    batch = draw(generator, 5, 2, 3, 4)
    gradients = torch.func.grad(lambda x: (weight * pool(x, mask)).sum())
    each = torch.func.vmap(gradients)(batch)
    assert_close(each, torch.stack([gradients(one) for one in batch]))


def test_a_mask_is_the_same_as_leaving_positions_out(generator):
    maps = draw(generator, 3, 4, 6, 6)
    mask = torch.zeros(3, 6, 6, dtype=torch.bool)
    mask[0, :, :4], mask[1, 2:, :], mask[2, 1:5, 1:5] = True, True, True
    padded = torch.where(mask.unsqueeze(1), maps, torch.nan)
    layers = [GlobalAverage(4), Bilinear(4), SecondOrder(4), representation("SEB", 4)]
    layers += [CovariancePool(shrinkage=0.2), SecondOrder(4, MatrixPower(0.25))]
    layers.append(CompactBilinear(4, 32, generator=generator))
    parts = (maps[0, :, :, :4], maps[1, :, 2:], maps[2, :, 1:5, 1:5])
    for layer in layers:
        together = layer(padded, mask)
        for k, part in enumerate(parts):
            assert_close(together[k], layer(part.unsqueeze(0))[0])
        leaf = padded.clone().requires_grad_()
        layer(leaf, mask).sum().backward()
        assert leaf.grad.isfinite().all()
        assert (leaf.grad[~mask.unsqueeze(1).expand_as(leaf)] == 0).all()


def test_shrinkage_keeps_the_trace(generator):
    maps = draw(generator, 2, 6, 5)
    plain, shrunk = CovariancePool()(maps), CovariancePool(shrinkage=0.3)(maps)
    assert_close(torch.linalg.eigvalsh(shrunk).sum(-1), torch.linalg.eigvalsh(plain).sum(-1))
    level = torch.linalg.eigvalsh(plain).mean(-1, keepdim=True)
    assert_close(torch.linalg.eigvalsh(shrunk), 0.7 * torch.linalg.eigvalsh(plain) + 0.3 * level)


def test_triangle_keeps_distances_if_weighted(generator):
    one, other = (x + x.mT for x in draw(generator, 2, 5, 5))
    assert float((triangle(one, weighted=True) - triangle(other, weighted=True)).norm()) == (
        pytest.approx(float((one - other).norm()))
    )
    assert_close(triangle(one)[:5], one[0])


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_every_representation_is_differentiable(generator, name):
    layer = representation(name, 4, **({"n_outputs": 8} if name == "CBP" else {}))
    maps = draw(generator, 2, 4, 3, 3)
    found = layer(maps)
    assert found.shape == (2, layer.n_outputs)
    # Those whose gradient is, by choice, not the derivative.
    bounded = {"SVD_Taylor": 0.02, "SVD_PI": 0.2, "SVD_Newton": 0.02, "MPA": 0.2, "MTP": 0.5}
    if name in bounded or name == "SVD_TopN":
        maps.requires_grad_()
        layer(maps).square().sum().backward()
        exact = maps.detach().clone().requires_grad_()
        representation("SVD_Lyapunov", 4)(exact).square().sum().backward()
        error = (maps.grad - exact.grad).norm() / exact.grad.norm()
        assert error < bounded.get(name, 1e-6)
    else:
        assert gradcheck(layer, maps.requires_grad_(), atol=1e-4)


def test_the_gain_has_its_exact_derivative_in_a_tie():
    matrix = torch.diag(torch.tensor([2.0, 2.0, 0.5], dtype=WIDE)).requires_grad_()
    assert gradcheck(lambda a: ScaledRoot()((a + a.mT) / 2), matrix)


def test_vector_or_square(generator):
    maps = draw(generator, 2, 4, 9)
    square = SecondOrder(4, vector=False)(maps).unflatten(1, (4, 4))
    assert_close(square @ square, CovariancePool()(maps))
    assert_close(triangle(square), SecondOrder(4)(maps))


def test_bilinear_by_hand(generator):
    maps = draw(generator, 2, 3, 2, 2)
    x = maps.flatten(2)
    product = torch.einsum("bim,bjm->bij", x, x).flatten(1) / 4
    root = product.sign() * (product.abs() + 1e-8).sqrt()
    assert_close(Bilinear(3)(maps), root / root.norm(dim=1, keepdim=True))


def test_both_sketches_are_the_convolution(generator):
    pool = CompactBilinear(5, 7, generator=generator, raw=True)
    vectors = draw(generator, 2, 5, 3)
    expected = torch.zeros(2, 7, dtype=WIDE)
    one, other = pool.places.tolist()
    for i in range(5):
        for j in range(5):
            sign = pool.signs[0, i] * pool.signs[1, j]
            value = (vectors[:, i] * vectors[:, j]).sum(-1)
            expected[:, (one[i] + other[j]) % 7] += sign * value
    for way in (pool.by_products, pool.by_transforms, pool):
        assert_close(way(vectors), expected)


def test_the_cheaper_sketch_is_taken(generator, monkeypatch):
    taken = []
    for way in ("by_products", "by_transforms"):
        plain = getattr(CompactBilinear, way)
        monkeypatch.setattr(
            CompactBilinear, way, lambda *a, way=way, plain=plain: taken.append(way) or plain(*a)
        )
    CompactBilinear(64, 8192, generator=generator)(torch.rand(1, 64, 7, 7))
    CompactBilinear(1024, 512, generator=generator)(torch.rand(1, 1024, 1))
    assert taken == ["by_products", "by_transforms"]


def test_sketches_are_unbiased(generator):
    """The inner product is the squared one in the mean over draws, within its own spread."""
    one, other = draw(generator, 2, 1, 8, 1)
    found = torch.tensor(
        [
            float((pool(one) * pool(other)).sum())
            for pool in (CompactBilinear(8, 64, generator=generator, raw=True) for _ in range(800))
        ]
    )
    expected = float((one * other).sum() ** 2)
    spread = float(found.std()) / 800**0.5
    assert abs(float(found.mean()) - expected) < 4 * spread
    assert spread < 0.2 * abs(expected) + 0.4


def test_sketches_are_kept_with_the_model(generator):
    state = torch.get_rng_state()
    one = CompactBilinear(4, 16, generator=generator)
    other = CompactBilinear(4, 16, generator=generator)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone
    maps = draw(generator, 1, 4, 2)
    assert not torch.equal(one(maps), other(maps))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(maps), other(maps))


@pytest.mark.parametrize("method", ["eigh", "newton_schulz", "pade"])
def test_whitened_channels_are_uncorrelated(generator, method):
    mix = draw(generator, 6, 6)
    maps = torch.einsum("ij,bjhw->bihw", mix, draw(generator, 8, 6, 5, 5)) + 3
    options = {"eigh": {}, "newton_schulz": {"steps": 25}, "pade": {"degree": 100}}[method]
    norm = DecorrelatedBatchNorm(6, groups=2, eps=1e-6, method=method, **options).double()
    for _ in range(200):
        found = norm(maps).detach()
    x = found.transpose(0, 1).flatten(1)
    for part in x.split(3):
        assert_close(part @ part.mT / part.shape[1], torch.eye(3, dtype=WIDE), atol=1e-3, rtol=0)
    assert float((x[:3] @ x[3:].mT).abs().max()) / x.shape[1] > 0.01  # groups are apart
    assert_close(norm.eval()(maps), found, atol=1e-6, rtol=0)


def test_whitening_has_its_derivative(generator):
    norm = DecorrelatedBatchNorm(3, affine=True).double()
    assert gradcheck(norm, draw(generator, 4, 3, 2).requires_grad_())


@pytest.mark.parametrize("method", ["eigh", "newton_schulz", "pade"])
def test_transferred_maps_have_the_statistics_of_the_style(generator, method):
    content, mix = draw(generator, 2, 5, 6, 7), draw(generator, 5, 5)
    style = torch.einsum("ij,bjp->bip", mix, draw(generator, 2, 5, 30)) - 4
    found = transfer_statistics(content, style, method=method)
    assert found.shape == content.shape
    assert_close(found.mean((2, 3)), style.mean(2))  # whatever the roots are
    size = {"eigh": 1e-9, "newton_schulz": 0.1, "pade": 0.1}[method]
    covariance, wanted = CovariancePool()(found), CovariancePool()(style)
    assert (covariance - wanted).norm() <= size * wanted.norm()
    if method == "eigh":
        assert_close(transfer_statistics(found, content), content)  # and back
        assert_close(transfer_statistics(content, content.flatten(2)), content)
        one = transfer_statistics(content, style[:1])
        assert_close(one[0], found[0])
        constant = transfer_statistics(torch.ones(1, 5, 4), style[:1].float())
        assert_close(constant, style[:1].float().mean(2, keepdim=True).expand(1, 5, 4))
        few = content[..., 0, :3].requires_grad_()  # three positions, rank two
        transfer_statistics(few, style).sum().backward()
        assert few.grad is not None
        assert few.grad.isfinite().all()


def test_transfer_has_its_derivative(generator):
    content, style = draw(generator, 1, 3, 6), draw(generator, 1, 3, 5)
    call = functools.partial(transfer_statistics, shrinkage=0.1)
    assert gradcheck(call, (content.requires_grad_(), style.requires_grad_()))


def test_times_of_a_video_are_positions(generator):
    video = draw(generator, 2, 3, 4, 5, 6)
    pool = SecondOrder(3)
    assert_close(pool(video), pool(video.flatten(2)))
    mask = torch.ones(2, 4, 5, 6, dtype=torch.bool)
    mask[:, 3] = False  # padded frames
    assert_close(pool(video, mask), pool(video[:, :, :3]))


def degenerate():
    yield "one position", torch.rand(2, 4, 1, 1)
    yield "one channel", torch.rand(2, 1, 3, 3)
    yield "constant", torch.full((2, 4, 3, 3), 0.7)
    yield "zero", torch.zeros(2, 4, 3, 3)
    yield "few positions", torch.rand(2, 8, 1, 3)
    yield "repeated", torch.eye(4).repeat(2, 1, 1).view(2, 4, 2, 2)
    yield "no image", torch.rand(0, 4, 3, 3)
    yield "half", torch.rand(2, 4, 3, 3).half()
    yield "bfloat16", torch.rand(2, 4, 3, 3).bfloat16()
    yield "huge", 1e15 * torch.rand(2, 4, 3, 3)
    yield "tiny", 1e-15 * torch.rand(2, 4, 3, 3)


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_degenerate_maps_have_finite_results_and_gradients(name):
    for what, maps in degenerate():
        layer = representation(name, maps.shape[1])
        maps = maps.requires_grad_()
        found = layer(maps)
        found.float().sum().backward()
        assert found.dtype == maps.dtype, what
        assert found.shape == (len(maps), layer.n_outputs), what
        assert found.isfinite().all(), what
        if what != "huge" or name != "SVD_PI":
            assert maps.grad.isfinite().all(), what


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_no_image_depends_on_another(generator, name):
    maps = draw(generator, 3, 4, 3, 3) * torch.tensor([1.0, 1e3, 1e-3]).view(3, 1, 1, 1)
    layer = representation(name, 4)
    together = layer(maps.requires_grad_())
    together.sum().backward()
    for k in range(3):
        alone = maps[k : k + 1].detach().clone().requires_grad_()
        found = layer(alone)
        found.sum().backward()
        assert_close(found[0], together[k], rtol=1e-7, atol=1e-9)
        assert_close(alone.grad[0], maps.grad[k], rtol=1e-5, atol=1e-9)


def test_powers_shrink_the_spectrum(generator):
    maps = draw(generator, 1, 5, 40)
    values = torch.linalg.eigvalsh(CovariancePool()(maps))
    for power in (0.25, 0.5, 1.0):
        layer = SecondOrder(5, MatrixPower(power), vector=False)
        found = torch.linalg.eigvalsh(layer(maps).unflatten(1, (5, 5)))
        assert_close(found, values**power)


def test_the_power_is_the_root_of_linalg(generator):
    matrix = CovariancePool()(draw(generator, 2, 5, 40))
    assert_close(
        MatrixPower(method="pade", degree=7)(matrix), sqrtm(matrix, method="pade", degree=7)
    )


BAD = torch.rand(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: SecondOrder(3)(BAD.fill_(torch.inf)),
            ValueError,
            r"finite feature maps.*learning",
        ),
        (lambda: transfer_statistics(MAPS, MAPS[:, :2]), ValueError, r"3 channels.*\(1, 2, 4\)"),
        (lambda: transfer_statistics(MAPS, MAPS, method="lu"), ValueError, r"method.*'lu'"),
        (lambda: GlobalAverage(3)(torch.full((1, 3, 2), torch.nan)), ValueError, "finite feature"),
        (lambda: SecondOrder(4)(BAD), ValueError, r"\(b, 4, .*got shape \(2, 3, 4, 4\)"),
        (lambda: SecondOrder(3)(torch.rand(2, 3)), ValueError, r"got shape \(2, 3\)"),
        (lambda: CovariancePool()(torch.rand(2, 3, 0)), ValueError, "at least one channel"),
        (lambda: CovariancePool()(torch.ones(2, 3, 4).long()), TypeError, r"got torch\.int64"),
        (lambda: CovariancePool()(BAD, torch.ones(2, 4, 4)), ValueError, r"booleans.*float32"),
        (lambda: CovariancePool()(BAD, torch.ones(2, 4).bool()), ValueError, r"\(2, 4, 4\)"),
        (lambda: CovariancePool(shrinkage=1.5), ValueError, r"in \[0, 1\], got 1\.5"),
        (lambda: MatrixPower(method="svd"), ValueError, r"'svd'; .eigh"),
        (lambda: MatrixPower(0.3, method="pade"), ValueError, r"\"eigh\" for the power 0\.3"),
        (lambda: MatrixPower(gradient="trunc", degree=2), TypeError, "'degree'"),
        (lambda: MatrixPower(float("inf")), ValueError, "finite number"),
        (lambda: representation("MPNCov", 3), ValueError, r"'MPNCOV'.*got 'MPNCov'"),
        (lambda: representation("MPNCOV", 3, power=0.3), ValueError, "0.3"),
        (lambda: representation("MPNCOV", 0), ValueError, "n_channels"),
        (lambda: CompactBilinear(3, 0, generator=torch.Generator()), ValueError, "n_outputs"),
        (lambda: triangle(torch.rand(2, 3)), ValueError, r"square.*\(2, 3\)"),
        (lambda: Reduction(3, 0), ValueError, "n_outputs"),
        (lambda: DecorrelatedBatchNorm(5, groups=2), ValueError, "equal groups"),
        (lambda: DecorrelatedBatchNorm(4, eps=0.0), ValueError, r"eps > 0.*eps=0\.0"),
        (lambda: DecorrelatedBatchNorm(4, method="taylor"), ValueError, "'taylor'"),
        (lambda: DecorrelatedBatchNorm(4)(torch.rand(1, 4, 1)), ValueError, "at least 2 vectors"),
        (lambda: DecorrelatedBatchNorm(4)(torch.rand(2, 3, 5)), ValueError, "4 channels, got 3"),
    ],
)
def test_rejects(call, error, message):
    with pytest.raises(error, match=message):
        call()
