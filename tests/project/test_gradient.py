import pytest
import torch
from torch.testing import assert_close

from cpic.project import project
from cpic.project._gradient import components, gap_of
from cpic.tt import TensorTrain
from tests.project.test_project import ROUTES, SIZES, low_rank_batch, random_train

BOUNDED = [
    ("trunc", {"bound": 1e6}),
    ("topn", {}),
    ("taylor", {"degree": 20}),
    ("pade", {}),
    ("power", {"steps": 30}),
]


def leaves(trains):
    return [core.detach().clone().requires_grad_() for core in trains.cores]


def small(trains):
    """The trains with norms of at most 1: rounding of large values drowns finite differences."""
    return trains.scale(1 / float(trains.norm().max()))


def invariant(features, weight):
    """Free of signs: squares, and products of features of one component."""
    moments = torch.einsum("kr,lr->rkl", features, features)
    return (moments * weight).sum() + (features**4).sum()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("trains", "n"), [(5, 2), (4, 4), (2, 3)])
def test_exact_equals_finite_differences(generator, route, trains, n):
    cores = leaves(small(random_train(generator, (3, 2, 4), 2, trains)))
    weight = torch.randn(n, trains, trains, generator=generator, dtype=torch.float64)

    def value(*cores):
        found = project(TensorTrain(cores), n, route=route, gradient="exact")
        return invariant(found.features, weight)

    assert torch.autograd.gradcheck(value, cores, eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("route", ROUTES)
def test_exact_equals_dense_autograd(generator, route):
    cores = leaves(random_train(generator, SIZES, 3, 6))
    weight = torch.randn(3, 6, 6, generator=generator, dtype=torch.float64)
    ours = invariant(project(TensorTrain(cores), 3, route=route, gradient="exact").features, weight)
    left, values, _ = torch.linalg.svd(TensorTrain(cores).full().flatten(1), full_matrices=False)
    twin = invariant(left[:, :3] * values[:3], weight)
    assert_close(ours, twin)
    for one, other in zip(
        torch.autograd.grad(ours, cores), torch.autograd.grad(twin, cores), strict=True
    ):
        assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("chosen", [slice(0, 3), slice(2, 4), slice(3, 5)])
def test_components_of_any_size(generator, chosen):
    """Also those that are not the largest, as where ranks are cut much."""
    half = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    gram = (half @ half.mT).requires_grad_()
    squares, vectors = torch.linalg.eigh(gram)
    twin = vectors.flip(-1)[:, chosen], squares.flip(-1)[chosen].sqrt()
    gap = gap_of("project", "exact", {})
    found = components(gram, *(part.detach() for part in twin), gap)
    weight = torch.randn(twin[0].shape, generator=generator, dtype=torch.float64)
    slopes = []
    for left, values in (found, twin):
        assert_close(left, twin[0])
        assert_close(values, twin[1])
        loss = (left**2 * weight).sum() + (values * weight[0]).sum()
        slopes.append(torch.autograd.grad(loss, gram, retain_graph=True)[0])
    assert_close(slopes[0], slopes[1])


def test_the_values_do_not_depend_on_the_gradient(generator):
    cores = leaves(random_train(generator, SIZES, 3, 6))
    expected = project(TensorTrain(cores), 4).features
    for method, options in [("exact", {}), ("original", {}), *BOUNDED]:
        found = project(TensorTrain(cores), 4, gradient=method, **options)
        assert torch.equal(found.features, expected)
        assert found.features.requires_grad
        assert not found.energies.requires_grad
        assert not any(core.requires_grad for core in found.basis.cores)


@pytest.mark.parametrize(("method", "options"), BOUNDED)
def test_bounded_methods_agree_where_energies_differ(generator, method, options):
    """Energies 1, 1/16, 1/256, ...: every method is close to the exact gradient."""
    batch = random_train(generator, SIZES, 3, 4).full().flatten(1)
    left, _, right = torch.linalg.svd(batch, full_matrices=False)
    matrix = (left * 4.0 ** -torch.arange(4).double()) @ right
    gradients = []
    for chosen, more in [("exact", {}), (method, options)]:
        core = matrix.view(4, 1, -1, 1).clone().requires_grad_()
        features = project(TensorTrain([core]), 3, gradient=chosen, **more).features
        gradients.append(torch.autograd.grad((features**4).sum(), core)[0])
    assert_close(gradients[1], gradients[0], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("method", "options"), BOUNDED)
def test_equal_samples_give_finite_gradients(generator, route, method, options):
    """Ties, and a batch of lower rank than features."""
    distinct = random_train(generator, SIZES, 3, 3)
    tied = random_train(generator, SIZES, 1, 2)
    orthogonal = TensorTrain(
        [
            torch.eye(3, dtype=torch.float64).view(3, 1, 3, 1),
            *[c[:1].expand(3, -1, -1, -1) for c in tied.cores[1:]],
        ]
    )
    for batch in (distinct[[0, 1, 2, 0, 1]], orthogonal, distinct.scale(0.0)):
        cores = leaves(batch)
        features = project(TensorTrain(cores), 4, route=route, gradient=method, **options).features
        loss = (features * torch.randn(features.shape, generator=generator)).sum()
        for grad in torch.autograd.grad(loss, cores):
            assert torch.isfinite(grad).all()
            assert grad.abs().max() < 1e18  # topn: 1 / eps


def test_nothing_to_differentiate(generator):
    """Where no gradient can flow, none is made."""
    batch = random_train(generator, SIZES, 3, 6)
    assert not project(batch, 3, gradient="exact").features.requires_grad
    with torch.no_grad():
        cores = leaves(batch)
        assert not project(TensorTrain(cores), 3, gradient="exact").features.requires_grad


@pytest.mark.parametrize(
    ("gradient", "options", "kind", "message"),
    [
        ("magic", {}, ValueError, r"project.*\"detached\" and \"exact\".*'taylor'.*'magic'"),
        ("detached", {"degree": 9}, TypeError, r"no options.*'degree'"),
        ("trunc", {"degree": 9}, TypeError, r"\"trunc\", got 'degree'"),
    ],
)
def test_rejects(generator, gradient, options, kind, message):
    with pytest.raises(kind, match=message):
        project(random_train(generator, SIZES, 2, 3), 2, gradient=gradient, **options)


def test_low_rank_batch_with_exact_gradient(generator):
    """Rank below the number of features, energies apart: still the derivative."""
    batch = low_rank_batch(generator, (3, 4, 2), 1, 4, 2)
    weight = torch.randn(3, 4, 4, generator=generator, dtype=torch.float64)
    cores = leaves(batch)

    def value(scale):
        moved = TensorTrain([cores[0] * scale.view(-1, 1, 1, 1), *cores[1:]])
        return invariant(project(moved, 3, gradient="exact").features, weight)

    scale = torch.ones(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(value, scale, eps=1e-6, atol=1e-6)
