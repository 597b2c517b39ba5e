import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib import colors
from matplotlib.figure import Figure

from cpic import show
from cpic.choose import choose
from cpic.show import _cost, _figure
from cpic.tt import dense_entries

SHAPE = (12, 10, 8)


def rand(generator, shape=SHAPE):
    return torch.rand(*shape, generator=generator)


def image(figure, k):
    return figure.axes[k].images[0]


def places(figure):
    return [ax.get_position().bounds for ax in figure.axes]


def test_slices_show_the_voxels_given(generator):
    volume = rand(generator).double()
    figure = show.slices(volume, at=(3, 4, 5))
    for k, wanted in enumerate([volume[3], volume[:, 4], volume[:, :, 5]]):
        np.testing.assert_array_equal(image(figure, k).get_array(), wanted.T)
        assert image(figure, k).origin == "lower"
    assert [ax.get_title() for ax in figure.axes] == ["x = 3", "y = 4", "z = 5"]


def test_slices_have_one_scale_and_fixed_places(generator):
    first = show.slices(rand(generator), window=(0, 1))
    second = show.slices(5 * rand(generator), window=(0, 1))
    assert places(first) == places(second)
    assert {image(f, k).get_clim() for f in (first, second) for k in range(3)} == {(0, 1)}
    widths = [p[2] for p in places(first)]
    np.testing.assert_allclose(np.array(widths) / widths[0], [1, 1.2, 1.2])
    _, _, _, tall = zip(*places(show.slices(rand(generator), spacing=(1, 1, 3))), strict=True)
    np.testing.assert_allclose(np.array(tall) / tall[2], [2.4, 2.4, 1])


def test_triplet_shows_original_rebuilt_and_signed_error(generator):
    first, second = rand(generator).double(), rand(generator).double()
    figure = show.triplet(first, second, axis=1, at=7)
    wanted = [first[:, 7].T, second[:, 7].T, (second - first)[:, 7].T]
    for k in range(3):
        np.testing.assert_array_equal(image(figure, k).get_array(), wanted[k])
    relative = float((second - first).norm() / first.norm())
    assert figure.axes[2].get_title() == f"error ({relative:.3g} of norm)"


def test_triplet_window_and_error_scale_do_not_follow_what_was_rebuilt(generator):
    volume = rand(generator)
    figures = [show.triplet(volume, scale * volume, window=(0, 2)) for scale in (0, 0.9, 40)]
    for figure in figures:
        assert [image(figure, k).get_clim() for k in range(3)] == [(0, 2), (0, 2), (-0.5, 0.5)]
        assert places(figure) == places(figures[0])
    loose = [show.triplet(volume, scale * volume) for scale in (0, 40)]
    assert image(loose[0], 1).get_clim() == image(loose[1], 1).get_clim()
    assert image(show.triplet(volume, volume, error=0.1), 2).get_clim() == (-0.1, 0.1)


def test_photographs_have_rows_downwards(generator):
    photo = rand(generator, (6, 9)).double()
    figure = show.triplet(photo, photo)
    np.testing.assert_array_equal(image(figure, 0).get_array(), photo)
    assert image(figure, 0).origin == "upper"
    marked = show.positions(photo, torch.tensor([[2, 7]]))
    assert marked.axes[0].collections[0].get_offsets().tolist() == [[7, 2]]


def test_positions_are_drawn_where_they_are_and_once(generator):
    coords = torch.tensor([[1, 2, 3], [1, 2, 3], [5, 2, 7]])
    figure = show.positions(rand(generator), coords)
    marks = [ax.collections[0].get_offsets().tolist() for ax in figure.axes]
    assert marks == [[[2, 3], [2, 7]], [[1, 3], [5, 7]], [[1, 2], [5, 2]]]
    assert figure.axes[0].get_title() == "x = 6: 2 positions"
    near = show.positions(rand(generator), coords, at=(5, 0, 0), thickness=1)
    assert [len(ax.collections[0].get_offsets()) for ax in near.axes] == [1, 0, 0]
    beside = show.positions(rand(generator), coords, at=(4, 0, 0), thickness=1)
    assert len(beside.axes[0].collections[0].get_offsets()) == 0
    show.positions(rand(generator), torch.empty(0, 3, dtype=torch.int64))


def test_rivals_show_what_was_read_at_its_true_size(generator):
    volume = rand(generator).double()
    options = {"budget": 0.3, "generator": generator}
    names = ("grid", "random")
    chosen = {by: choose(dense_entries(volume[None]), SHAPE, by=by, **options) for by in names}
    figure = show.rivals(volume, chosen, axis=1, at=4, window=(0, 1))
    np.testing.assert_array_equal(image(figure, 0).get_array(), volume[:, 4].T)
    for column, one in enumerate(chosen.values()):
        rebuilt = one.dense()[0]
        above, below = figure.axes[2 * column + 1], figure.axes[2 * column + 2]
        np.testing.assert_array_equal(above.images[0].get_array(), rebuilt[:, 4].T)
        marks = torch.zeros(SHAPE)
        marks[one.positions[0].unbind(-1)] = 1
        np.testing.assert_array_equal(below.images[0].get_array(), marks[:, 4].T)
        assert below.images[0].get_interpolation() == "nearest"
        error = float((rebuilt - volume).norm() / volume.norm())
        assert f"error {error:.2g}" in above.get_title()
        assert below.get_title() == f"read {100 * int(one.asked) / volume.numel():.2g} %"
    thick = show.rivals(volume, chosen, axis=1, at=4, thickness=3).axes[2].images[0].get_array()
    seen = torch.zeros(SHAPE)
    seen[chosen["grid"].positions[0].unbind(-1)] = 1
    np.testing.assert_array_equal(thick, seen[:, 2:7].amax(1).T)
    photo = volume[0]
    one = choose(dense_entries(photo[None]), photo.shape, budget=0.5)
    assert image(show.rivals(photo, {"grid": one}), 1).origin == "upper"
    for wrong in ({}, {"grid": one}):
        with pytest.raises(ValueError, match="rivals needs"):
            show.rivals(volume, wrong)


def test_spectra_of_a_tensor_and_of_given_values(generator):
    tensor = rand(generator, (4, 5, 6)).double()
    figure = show.spectra(tensor, tol=1e-2, floor=1e-4)
    lines = figure.axes[0].lines
    for k, rows in enumerate((4, 20)):
        wanted = torch.linalg.svdvals(tensor.reshape(rows, -1)) / tensor.norm()
        np.testing.assert_allclose(lines[k].get_ydata(), wanted, rtol=1e-10)
    assert lines[2].get_ydata()[0] == 1e-2
    assert figure.axes[0].get_ylim() == (1e-4, 1.5)
    given = show.spectra([torch.tensor([3.0, 4.0]), [1.0, 0.0]])
    np.testing.assert_allclose(given.axes[0].lines[0].get_ydata(), [0.8, 0.6])
    assert given.axes[0].lines[1].get_ydata()[1] < given.axes[0].get_ylim()[0]
    assert len(show.spectra([[2.0, 1.0]] * 12).axes) == 2


def test_train_boxes_have_the_ranks_as_sides_and_bytes_as_color():
    train = SimpleNamespace(ranks=(1, 3, 6, 1), sizes=(4, 5, 2))
    figure = show.train_to_scale(train, max_rank=10)
    boxes = figure.axes[0].patches
    assert [(b.get_height(), b.get_width()) for b in boxes] == [(1, 3), (3, 6), (6, 1)]
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert sorted(texts) == sorted(["4", "3", "5", "6", "2"])
    grays = [np.dot(b.get_facecolor()[:3], [0.3, 0.6, 0.1]) for b in boxes]
    assert np.argsort(grays).tolist() == [0, 2, 1]
    other = show.train_to_scale(SimpleNamespace(ranks=(1, 9, 9, 1), sizes=(4, 5, 2)), max_rank=10)
    assert other.axes[0].get_xlim() == figure.axes[0].get_xlim()
    assert other.axes[0].get_ylim() == figure.axes[0].get_ylim()


def test_budget_bars_are_as_long_as_the_amounts():
    figure = show.budget([("dense", 2.2e12), ("train", 84e4)], memory=80e9, limits=(1e4, 1e13))
    assert [bar.get_width() for bar in figure.axes[0].patches] == [2.2e12, 84e4]
    assert figure.axes[0].get_xlim() == (1e4, 1e13)
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts == ["2.2 TB", "840 kB", "GPU memory 80 GB"]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["dense", "train"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.5, "bytes", "0.5 B"),
        (999, "bytes", "999 B"),
        (1000, "bytes", "1 kB"),
        (8.7e6, "voxels", "8.7 million"),
        (5.5e11, "voxels", "550 billion"),
        (12, "voxels", "12"),
    ],
)
def test_human_units(value, unit, text):
    assert _cost.human(value, unit) == text


def test_error_curve_draws_median_and_band():
    errors = np.array([[0.3, 0.2], [0.5, 0.1], [0.4, 0.4]])
    figure = show.error_curve([10, 100], {"a": errors, "b": [0.1, 0]}, goal=0.2, limits=(0.01, 1))
    ax = figure.axes[0]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.4, 0.2])
    band = ax.collections[0].get_paths()[0].get_extents()
    assert (band.ymin, band.ymax) == (0.1, 0.5)
    assert ax.get_ylim() == (0.01, 1)
    assert ax.lines[1].get_ydata()[1] > 0
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b", "goal 0.2"]


def test_curves_are_the_columns_of_the_table(tmp_path):
    head = "epoch,step,train_loss,train_top5_error,val_accuracy,val_top5_error,val_error"
    table = f"{head}\n0,5,2.5,0.75,0.25,0.5,1\n1,10,1.5,0.5,,0.25,1\n"
    (tmp_path / "metrics.csv").write_text(table)
    figure = show.training_curves(tmp_path)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["train loss", "top5 error", "accuracy", "error"]
    lines = [ax.lines[0].get_xydata() for ax in figure.axes]
    np.testing.assert_array_equal(lines[0], [[0, 2.5], [1, 1.5]])
    np.testing.assert_array_equal(lines[2], [[0, 0.25], [1, np.nan]])
    both = {line.get_label(): list(line.get_ydata()) for line in figure.axes[1].lines}
    assert both == {"training": [0.75, 0.5], "validation": [0.5, 0.25]}
    (ax,) = show.training_curves(tmp_path, metrics=["step"]).axes
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [5, 10])
    bounds = places(figure)
    assert bounds[3][1] < bounds[0][1]
    assert bounds[3][0] == bounds[0][0]
    assert all(left >= 0 and left + width <= 1 for left, _, width, _ in bounds)


def test_gradients_of_each_weight_are_drawn_in_their_order():
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"got a Sequential without; call backward"):
        show.gradient_flow(network)
    network(torch.ones(1, 2)).square().sum().backward()
    network[2].weight.grad = torch.tensor([[1.0, 0, -3], [0, 0, 0]])
    network[0].weight.grad.zero_()
    (ax,) = show.gradient_flow(network).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0.weight", "2.weight"]
    found = {line.get_label(): list(line.get_xdata()) for line in ax.lines}
    assert found == {
        "mean": [pytest.approx(np.nan, nan_ok=True), 4 / 6],
        "largest": [pytest.approx(np.nan, nan_ok=True), 3],
    }
    assert ax.yaxis_inverted()


TABLES = {"no metric": "", "no.*val_x": "epoch,a\n0,1\n", "no number": "epoch,val_x\n0,b\n"}


@pytest.mark.parametrize("words", TABLES)
def test_a_table_without_curves_is_one_clear_error(words, tmp_path):
    with pytest.raises(ValueError, match="needs a run with"):
        show.training_curves(tmp_path)
    (tmp_path / "metrics.csv").write_text(TABLES[words])
    with pytest.raises(ValueError, match="at least one epoch" if not TABLES[words] else words):
        show.training_curves(tmp_path, metrics=["val_x"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int16, torch.bool])
def test_any_real_dtype_and_gradients(dtype):
    volume = torch.ones(SHAPE, dtype=dtype)
    assert len(show.slices(volume).axes) >= 3
    assert len(show.triplet(torch.ones(SHAPE, requires_grad=True), volume).axes) >= 3


def test_constant_and_zero_volumes():
    zero = torch.zeros(SHAPE)
    assert show.triplet(zero, zero).axes[2].get_title() == "error"
    assert image(show.slices(zero), 0).get_clim() == (0, 1)


def test_figures_are_opaque_show_themselves_and_stay_out_of_pyplot(generator):
    figure = show.slices(rand(generator))
    assert isinstance(figure, Figure)
    assert figure.get_facecolor() == (1, 1, 1, 1)
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert "x = 6" in figure.alt


@pytest.mark.parametrize("color", [*_figure.LINES[:1], *_figure.LINES[2:], "0.35", "black"])
def test_colors_of_lines_contrast_with_white(color):
    rgb = np.array(colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5


ONES = torch.ones(SHAPE)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: show.slices(torch.ones(3, 4)), "3 axes, got shape"),
        (lambda: show.slices(torch.ones(0, 4, 4)), "at least one value"),
        (lambda: show.slices(torch.full(SHAPE, torch.nan)), "without NaN"),
        (lambda: show.slices(ONES, at=(0, 0, 8)), "inside shape"),
        (lambda: show.slices(ONES, at=(0, 0)), "inside shape"),
        (lambda: show.slices(ONES, window=(1, 1)), "black < white"),
        (lambda: show.slices(ONES, titles=["a"]), "three titles"),
        (lambda: show.slices(ONES, spacing=(1, 0, 1)), "positive spacing"),
        (lambda: show.slices(ONES, spacing=(1, 1)), "spacing"),
        (lambda: show.triplet(ONES, ONES[1:]), "equal shapes"),
        (lambda: show.triplet(ONES, ONES, axis=3), "axis 0, 1 or 2"),
        (lambda: show.triplet(ONES, ONES, at=8), "from 0 to 7"),
        (lambda: show.triplet(ONES, ONES, error=0), "positive error scale"),
        (lambda: show.triplet(ONES, ONES, spacing=(1, 1)), "spacing"),
        (lambda: show.positions(ONES, torch.tensor([[1, 2]])), r"shape \(n, 3\)"),
        (lambda: show.positions(ONES, torch.tensor([[12, 0, 0]])), "inside shape"),
        (lambda: show.positions(ONES, torch.tensor([[0, -1, 0]])), "inside shape"),
        (lambda: show.spectra(torch.ones(3)), "two axes"),
        (lambda: show.spectra([]), "for each bond"),
        (lambda: show.spectra([[0.0, 0.0]]), "not all zero"),
        (lambda: show.spectra([[1.0, -1.0]]), "not negative"),
        (lambda: show.spectra([[1.0]], labels=["a", "b"]), "1 labels, got 2"),
        (lambda: show.spectra([[1.0]], floor=2), "floor between"),
        (lambda: show.train_to_scale(SimpleNamespace(ranks=(1, 1), sizes=())), "d sizes"),
        (
            lambda: show.train_to_scale(SimpleNamespace(ranks=(1, 5, 1), sizes=(2, 2)), max_rank=4),
            "max_rank >= 5",
        ),
        (lambda: show.budget([]), "at least one row"),
        (lambda: show.budget({"a": 0}), "positive finite"),
        (lambda: show.budget({"a": 1}, unit="pixels"), "a unit of"),
        (lambda: show.budget({"a": 1}, limits=(2, 1)), "low < high"),
        (lambda: show.error_curve([1, 2], [0.1]), r"shape \(2,\)"),
        (lambda: show.error_curve([0, 2], [0.1, 0.1]), "positive samples"),
        (lambda: show.error_curve([1, 2], [-0.1, 0.1]), "errors >= 0"),
        (lambda: show.error_curve([1, 2], {}), "at least one curve"),
    ],
)
def test_one_clear_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: show.positions(ONES, torch.ones(2, 3)),
        lambda: show.slices("volume"),
        lambda: show.error_curve([1], [None]),
    ],
)
def test_wrong_types(call):
    with pytest.raises((TypeError, ValueError), match="needs"):
        call()


def test_import_is_light_and_names_are_all_there():
    code = (
        "import sys; from cpic import show; "
        "bad = {'matplotlib', 'ipywidgets', 'PIL'} & set(sys.modules); assert not bad, bad; "
        "[getattr(show, n) for n in show.__all__]; assert dir(show) == show.__all__"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute"):
        _ = show.nothing  # pyright: ignore
