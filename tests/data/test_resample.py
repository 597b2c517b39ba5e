"""Splines through voxels: equal to SciPy's, in every type, direction and size."""

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom

from cpic import data
from cpic._errors import VolumeError
from cpic.data.resample import resample

SHAPES = [
    ((7,), (14,)),
    ((1,), (3,)),
    ((40,), (1,)),
    ((3, 5), (9, 4)),
    ((12, 7, 9), (24, 14, 18)),
    ((12, 7, 9), (5, 7, 1)),
    ((30, 2, 17), (11, 16, 18)),
]


def drawn(shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def scipy_zoom(values, shape, order):
    factors = [m / n for n, m in zip(values.shape, shape, strict=True)]
    return zoom(values, factors, order=order, mode="nearest")


@pytest.mark.parametrize("order", range(6))
@pytest.mark.parametrize(("shape", "wanted"), SHAPES)
def test_equals_scipy(shape, wanted, order):
    values = drawn(shape)
    twin = scipy_zoom(values, wanted, order)
    found = resample(values, wanted, order=order)
    assert found.shape == wanted
    np.testing.assert_allclose(found, twin, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_keeps_the_floating_type_and_the_kind_of_array(dtype):
    values = drawn((9, 8, 7), dtype)
    found = resample(values, (18, 4, 7))
    assert (type(found), found.dtype) == (np.ndarray, dtype)
    tensor = resample(torch.from_numpy(values), (18, 4, 7))
    assert np.array_equal(tensor.numpy(), found)
    volume = resample(data.ArrayVolume(values), (18, 4, 7))
    assert torch.equal(volume, tensor)
    atol = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(found, scipy_zoom(values, (18, 4, 7), 3), rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("dtype", "wider"), [("u1", "f4"), ("i2", "f4"), ("f2", "f4"), ("i4", "f8"), ("?", "f4")]
)
def test_whole_numbers_and_halves_widen(dtype, wider):
    values = (drawn((6, 5)) > 0).astype(dtype)
    found = resample(values, (12, 10))
    assert found.dtype == wider
    np.testing.assert_allclose(found, scipy_zoom(values.astype("f8"), (12, 10), 3), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_labels_stay_labels_with_order_zero(dtype):
    labels = np.random.default_rng(0).choice([0, 1, 2, 4], (9, 8, 7)).astype(dtype)
    found = resample(labels, (13, 16, 5), order=0)
    assert found.dtype == dtype
    assert np.array_equal(found, scipy_zoom(labels, (13, 16, 5), 0))


def test_channels_are_resampled_one_by_one():
    values = drawn((6, 5, 4, 3))
    found = resample(values, (12, 5, 3), channels=3)
    apart = [resample(values[..., k], (12, 5, 3)) for k in range(3)]
    np.testing.assert_allclose(found, np.stack(apart, -1), rtol=0, atol=1e-12)
    volume = data.ArrayVolume(values, channels=3)
    assert np.array_equal(resample(volume, (12, 5, 3)).numpy(), found)


def test_the_same_shape_changes_nothing_and_corners_stay():
    values = drawn((6, 5, 4))
    assert np.array_equal(resample(values, (6, 5, 4)), values)
    found = resample(values, (13, 17, 9))
    corners = np.ix_([0, -1], [0, -1], [0, -1])
    np.testing.assert_allclose(found[corners], values[corners], rtol=0, atol=1e-12)


def test_the_gradient_is_that_of_finite_differences():
    values = torch.from_numpy(drawn((3, 4, 2))).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: resample(v, (5, 2, 3)), values)


def test_the_input_is_left_alone():
    values = drawn((6, 5))
    before = values.copy()
    found = resample(values, (6, 5))
    assert not np.shares_memory(found, values)
    found += 1
    assert np.array_equal(values, before)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: resample(drawn((4, 4)), (4,)), r"each axis of \(4, 4\), got \(4,\)"),
        (lambda: resample(drawn((4, 4)), (4, 0)), r"size of at least 1 .* got \(4, 0\)"),
        (lambda: resample(drawn((4, 4)), (4, 2.5)), r"got \(4, 2.5\)"),
        (lambda: resample(drawn((4, 4)), (8, 8), order=6), "order from 0 to 5, got 6"),
        (lambda: resample(drawn((4, 4)), (8,), channels=3), r"channels=3 .* \(4, 4\)"),
        (lambda: resample(np.array([1.0, np.nan]), (4,)), "finite values, got 1 that are NaN"),
        (lambda: resample(np.array([1.0, np.inf]), (4,)), "finite values, got 1"),
    ],
)
def test_what_does_not_fit_is_refused(build, message):
    with pytest.raises(VolumeError, match=message):
        build()
