"""Decoders of latent patches: shapes, sizes, gradients, and what they read."""

import copy

import pytest
import torch

from cpic.data import ArrayVolume
from cpic.nn import CubeEncoder, Reading, Search
from cpic.nn.patches import Autoencoder, BalancedPositions, PatchDecoder, Segmenter, class_of
from cpic.nn.patches._positions import Watched, read_and_random
from cpic.tt._points import all_points

SHAPE = (8, 6, 8)


class TinyEncoder(torch.nn.Module):
    """Sees 3 voxels along each axis."""

    def __init__(self, n_dims=2, in_channels=1, n_axes=3):
        super().__init__()
        torch.manual_seed(0)
        self.n_dims, self.in_channels, self.receptive_field = n_dims, in_channels, 3
        self.linear = torch.nn.Linear(in_channels * 3**n_axes, n_dims).double()

    def forward(self, cubes):
        return self.linear(cubes.double().flatten(1)).sigmoid()


def count(module):
    return sum(p.numel() for p in module.parameters())


def volumes(generator, n=2, shape=SHAPE, channels=1):
    full = (*shape, channels) if channels > 1 else shape
    arrays = [torch.rand(full, generator=generator, dtype=torch.float64) for _ in range(n)]
    return [ArrayVolume(array, channels=channels) for array in arrays]


def decoder(n_outputs=1, n_dims=2, width=3, n_axes=3):
    torch.manual_seed(1)
    options = {"hidden": 8, "precision": torch.float64}
    return PatchDecoder(n_outputs, n_dims=n_dims, width=width, n_axes=n_axes, **options)


def autoencoder(generator, shape=SHAPE, contrasts=1, rank=3, **options):
    encoder = TinyEncoder(in_channels=contrasts, n_axes=len(shape))
    made = decoder(contrasts, n_axes=len(shape))
    kinds = {"shape": shape, "contrasts": contrasts, "generator": generator}
    return Autoencoder(encoder, made, search=Search(rank=rank, **options), **kinds)


def segmenter(generator, rank=3, **options):
    kinds = {"shape": SHAPE, "generator": generator}
    return Segmenter(TinyEncoder(), decoder(3), search=Search(rank=rank, **options), **kinds)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, 2000 * 256 + 256 * 256 + 2 * 256 + 4 * 256 + 256 + 1),
        ({"n_dims": 4, "n_outputs": 4}, 500 * 256 + 256 * 256 + 2 * 256 + 4 * 256 + 4 * 257),
        ({"n_dims": 4, "width": 3, "n_axes": 2}, 36 * 256 + 256 * 256 + 6 * 256 + 257),
    ],
)
def test_decoder_has_the_stated_number_of_parameters(options, wanted):
    assert count(PatchDecoder(**options)) == wanted


def test_golden_parameter_counts(generator):
    assert count(PatchDecoder()) == 579_329
    assert count(PatchDecoder(4, n_dims=8)) == 324_100
    made = Autoencoder(CubeEncoder(16), PatchDecoder(), shape=(32, 32, 32), generator=generator)
    assert count(made) == 23_146 + 579_329


def test_decoder_takes_patches_flattened_or_not_of_any_type(generator):
    made = decoder().eval()
    patches = torch.rand(5, 3, 3, 3, 2, generator=generator)
    assert made(patches).dtype == torch.float64
    assert torch.equal(made(patches), made(patches.flatten(1).double()))


def test_statistics_follow_at_the_stated_pace(generator):
    patches = torch.rand(50, 3, 3, 3, 2, generator=generator)
    for momentum in (0.3, 1.0):
        torch.manual_seed(1)
        made = PatchDecoder(n_dims=2, width=3, hidden=8, momentum=momentum)
        mean = made.layers[0](patches.flatten(1)).mean(0)
        made(patches)
        torch.testing.assert_close(made.layers[1].running_mean, momentum * mean)


def test_gradient_of_the_decoder(generator):
    made = decoder(2)
    patches = torch.rand(4, 54, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(made, (patches,))


def test_decoding_a_train_is_decoding_patches_of_the_full_latent_volume(generator):
    model = autoencoder(generator)
    positions = torch.randint(-1, 9, (2, 20, 3), generator=generator)
    trains = model.compress(volumes(generator), ["a", "b"])
    latent = model.grid.join(trains.full().detach())
    patches = torch.cat(
        [
            ArrayVolume(one, channels=2).cubes(at, size=3).movedim(1, -1)
            for one, at in zip(latent, positions, strict=True)
        ]
    )
    found = model.decode(trains, positions)  # batch statistics are of both volumes
    assert found.shape == (2, 20, 1)
    torch.testing.assert_close(found.flatten(0, 1), model.decoder(patches), rtol=1e-9, atol=1e-12)


def test_full_rank_latent_train_is_the_encoded_volume(generator):
    model = autoencoder(generator, shape=(4, 4, 4), rank=64).eval()
    batch = volumes(generator, 1, (4, 4, 4))
    latent = model.grid.join(model.compress(batch, ["a"]).full())[0]
    every = all_points((4, 4, 4))
    wanted = model.latent.encoder(batch[0].cubes(every, size=3)).view(4, 4, 4, 2)
    torch.testing.assert_close(latent, wanted, rtol=1e-9, atol=1e-9)


def test_loss_is_the_error_at_what_was_read_and_as_many_others(generator):
    model, batch = autoencoder(generator), volumes(generator)
    draws = torch.Generator().manual_seed(5)
    watched = [Watched(volume) for volume in batch]
    twin = autoencoder(torch.Generator().manual_seed(3))
    twin.load_state_dict(model.state_dict())
    trains = twin.compress(watched, ["a", "b"])
    positions = read_and_random(watched, most=4096, generator=draws)
    values = torch.stack([v.voxels(at) for v, at in zip(batch, positions, strict=True)])
    wanted = (twin.decode(trains, positions)[..., 0] - values).square().mean()
    draws.manual_seed(5)
    loss = model.loss(batch, ["a", "b"], generator=draws)
    torch.testing.assert_close(loss, wanted)


def test_positions_are_those_that_were_read_and_at_least_as_many_uniform_ones(generator):
    batch = [Watched(volume) for volume in volumes(generator)]
    some = torch.tensor([[0, 0, 1], [7, 5, 7], [0, 0, 1], [2, 3, 4], [3, 3, 9]])
    batch[0].cubes(some, size=3)
    batch[1].cubes(some[:2], size=3)
    batch[0].cubes(some[:1], size=3)
    positions = read_and_random(batch, most=9, generator=generator)
    assert positions.shape == (2, 6, 3)
    assert positions[0, :3].tolist() == [[0, 0, 1], [2, 3, 4], [7, 5, 7]]
    assert positions[1, :2].tolist() == [[0, 0, 1], [7, 5, 7]]
    many = [Watched(volume) for volume in volumes(generator, 1, (40, 50))]
    many[0].cubes(all_points((40, 50)), size=1)
    drawn = read_and_random(many, most=2000, generator=generator)[0, 2000:]
    assert len(drawn) == 2000
    assert drawn.amin(0).tolist() == [0, 0]
    assert drawn.amax(0).tolist() == [39, 49]
    assert (drawn.double().mean(0) - torch.tensor([19.5, 24.5])).abs().max() < 1.5
    few = read_and_random(many, most=100, generator=generator)[0]
    assert few.shape == (200, 2)
    assert len(few[:100].unique(dim=0)) == 100
    assert few[:100, 0].max() > 20


def test_all_that_is_read_is_watched(generator):
    model, batch = autoencoder(generator), volumes(generator)
    watched = [Watched(volume) for volume in batch]
    for _ in range(3):  # names known: one half-sweep, each distinct position encoded once
        before = model.latent.counts.encoded
        for one in watched:
            one.centers.clear()
        model.compress(watched, ["a", "b"])
    assert sum(len(one.read_at()) for one in watched) == model.latent.counts.encoded - before


@pytest.mark.parametrize("kind", ["autoencoder", "segmenter"])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_gradient_of_the_loss_by_finite_differences(kind, part, generator):
    # All of the latent volume is read at this rank, so that the sets may move without an effect.
    batch = volumes(generator)
    model = autoencoder(generator, rank=64) if kind == "autoencoder" else segmenter(generator, 64)
    positions = torch.randint(0, 6, (2, 30, 3), generator=generator)
    classes = torch.randint(0, 3, (2, 30), generator=generator)
    state = copy.deepcopy(model.state_dict())
    name = {"encoder": "latent.encoder.linear.weight", "decoder": "decoder.layers.0.weight"}[part]

    def loss():
        model.load_state_dict(state)
        if isinstance(model, Autoencoder):
            return model.loss(batch, ["a", "b"], generator=torch.Generator().manual_seed(2))
        return model.loss(batch, ["a", "b"], positions, classes)

    loss().backward()
    slopes = model.get_parameter(name).grad
    assert slopes is not None
    place = (1, int(slopes[1].abs().argmax()))
    step, ends = 1e-6, []
    for sign in (1, -1):
        state[name][place] += sign * step
        ends.append(loss().item())
        state[name][place] -= sign * step
    assert abs(slopes[place]) > 1e-6
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(slopes[place]), rel=1e-3)


@pytest.mark.parametrize("contrasts", [1, 2])
@pytest.mark.parametrize("shape", [SHAPE, (9, 7)])
def test_shapes_of_what_is_rebuilt(shape, contrasts, generator):
    model = autoencoder(generator, shape=shape, contrasts=contrasts)
    batch = volumes(generator, shape=shape, channels=contrasts)
    model.loss(batch, ["a", "b"], generator=generator)
    trains = model.compress(batch, ["a", "b"])
    behind = (contrasts,) if contrasts > 1 else ()
    positions = torch.randint(0, 6, (2, 11, len(shape)), generator=generator)
    values = model.rebuild(trains, positions, batch=5)
    assert values.shape == (2, 11, *behind)
    assert not values.requires_grad
    torch.testing.assert_close(values, model.rebuild(trains, positions))
    for axis in range(len(shape)):
        plane = model.slice(trains, axis=axis, at=3)
        left = [size for k, size in enumerate(shape) if k != axis]
        assert plane.shape == (2, *left, *behind)
        at = torch.full((2, 1, len(shape)), 1)
        at[..., axis] = 3
        spot = plane[(slice(None), *[1] * len(left))]
        torch.testing.assert_close(spot, model.rebuild(trains, at)[:, 0])


def test_rebuilding_leaves_the_mode_and_the_statistics_alone(generator):
    model, batch = autoencoder(generator), volumes(generator)
    trains = model.compress(batch, ["a", "b"])
    before = [buffer.clone() for buffer in model.decoder.buffers()]
    positions = torch.randint(0, 6, (2, 9, 3), generator=generator)
    values = model.rebuild(trains, positions)
    assert model.decoder.training
    assert all(map(torch.equal, before, model.decoder.buffers()))
    assert torch.equal(values[:, :4], model.rebuild(trains, positions[:, :4]))


def test_evaluation_changes_nothing(generator):
    model, batch = autoencoder(generator), volumes(generator)
    model.loss(batch, ["a", "b"], generator=generator)
    model.eval()
    sets = model.latent.memory.get(["a", "b"])
    first = model.compress(batch, ["a", "new"]).detach()
    again = model.compress(batch, ["a", "new"]).detach()
    assert all(map(torch.equal, first.cores, again.cores))
    now = model.latent.memory.get(["a", "b"])
    assert all(map(torch.equal, (*sets.left, *sets.right), (*now.left, *now.right)))


def test_same_generators_give_the_same_steps_and_a_resumed_run_too():
    def run(steps, state=None):
        model = autoencoder(torch.Generator().manual_seed(7))
        draws = torch.Generator().manual_seed(8)
        optimizer = torch.optim.RAdam(model.parameters(), 1e-2)
        batch = volumes(torch.Generator().manual_seed(9))
        if state is not None:
            model.load_state_dict(state[0])
            optimizer.load_state_dict(state[1])
            draws.set_state(state[2])
        losses = []
        for _ in range(steps):
            loss = model.loss(batch, ["a", "b"], generator=draws)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, (model.state_dict(), optimizer.state_dict(), draws.get_state())

    whole, _ = run(4)
    first, state = run(2)
    assert whole == first + run(2, state)[0]


def smooth_volumes():
    axes = torch.linspace(0, 1, 16)
    x, y, z = torch.meshgrid(axes, axes, axes, indexing="ij")
    return [torch.sin(6 * x + k) * torch.cos(5 * y - k) + z for k in range(2)]


def trained(kind, n_outputs, loss_of, steps, generator):
    """A model after a few steps on the smooth volumes, and their trains."""
    batch, names = [ArrayVolume(wave) for wave in smooth_volumes()], ["a", "b"]
    torch.manual_seed(0)
    made = PatchDecoder(n_outputs, n_dims=2, width=3, hidden=32)
    encoder = CubeEncoder(2, variant="fast")
    options = {"shape": (16, 16, 16), "search": Search(rank=4)}
    model = kind(encoder, made, **options, generator=generator)
    optimizer = torch.optim.RAdam(model.parameters(), 2e-2)
    for _ in range(steps):
        loss = loss_of(model, batch, names)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, model.eval().compress(batch, names).detach()


def test_autoencoder_learns_smooth_volumes(generator):
    def loss_of(model, batch, names):
        return model.loss(batch, names, generator=generator)

    model, trains = trained(Autoencoder, 1, loss_of, 40, generator)
    rebuilt = torch.stack([model.slice(trains, axis=0, at=k) for k in range(16)], 1)
    true = torch.stack(smooth_volumes())
    assert (rebuilt - true).square().mean() < 0.5 * true.var()


def test_segmenter_beats_the_majority_on_balanced_positions(generator):
    segs = [ArrayVolume((wave > 1).byte()) for wave in smooth_volumes()]
    where = BalancedPositions(segs, labels=(0, 1), generator=generator)
    both = torch.arange(2)

    def loss_of(model, batch, names):
        return model.loss(batch, names, *where.draw(both, 400, generator=generator))

    model, trains = trained(Segmenter, 2, loss_of, 20, generator)
    positions, classes = where.draw(both, 1000, generator=generator)
    assert (model.classify(trains, positions) == classes).double().mean() > 0.65


def test_segmenter_scores_and_classes(generator):
    model, batch = segmenter(generator), volumes(generator)
    positions = torch.randint(0, 6, (2, 12, 3), generator=generator)
    classes = torch.randint(0, 3, (2, 12), generator=generator)
    scores = model(batch, ["a", "b"], positions)
    assert scores.shape == (2, 12, 3)
    model.eval()
    trains = model.compress(batch, ["a", "b"])
    scores = model.decode(trains, positions)
    found = model.classify(trains, positions, batch=3)
    assert torch.equal(found, scores.argmax(-1))
    picked = scores.log_softmax(-1).gather(-1, classes[..., None])
    torch.testing.assert_close(model.loss(batch, ["a", "b"], positions, classes), -picked.mean())
    plane = model.slice(trains, axis=1, at=2)
    assert plane.shape == (2, 8, 8)
    at = torch.tensor([[[3, 2, 5]]]).expand(2, -1, -1)
    assert torch.equal(plane[:, 3, 5], model.classify(trains, at)[:, 0])


def labeled(generator):
    seg = torch.zeros(3, *SHAPE, dtype=torch.uint8)
    seg[0, 2:4, 3, 3] = 4
    seg[0, 5, :, 1] = 1
    seg[0, 6, 0, 0] = 2
    seg[1, 1, 1, 1:5] = 2
    return seg, BalancedPositions([ArrayVolume(s) for s in seg], most=50, generator=generator)


def test_classes_take_turns_where_a_volume_has_them(generator):
    seg, where = labeled(generator)
    assert where.counts.tolist() == [[375, 6, 1, 2], [380, 0, 4, 0], [384, 0, 0, 0]]
    rows = torch.tensor([1, 0, 2, 0])
    positions, classes = where.draw(rows, 40, generator=generator)
    assert positions.shape == (4, 40, 3)
    shares = [row.bincount(minlength=4).tolist() for row in classes]
    assert shares == [[20, 0, 20, 0], [10, 10, 10, 10], [40, 0, 0, 0], [10, 10, 10, 10]]
    x, y, z = positions.unbind(-1)
    assert torch.equal(class_of(seg[rows[:, None], x, y, z]), classes)
    assert len(positions[2].unique(dim=0)) > 20
    assert torch.equal(positions[1][classes[1] == 2][0], torch.tensor([6, 0, 0]))


def test_positions_depend_on_the_generator_alone():
    def draw(seed):
        source = torch.Generator().manual_seed(seed)
        return labeled(source)[1].draw(torch.tensor([0, 1]), 9, generator=source)[0]

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_class_of_labels():
    values = torch.tensor([[0.0, 4.0], [2.0, 1.0]])
    assert class_of(values).tolist() == [[0, 3], [2, 1]]
    assert class_of(torch.tensor([5, 7]), labels=(5, 7)).tolist() == [0, 1]


def gen():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PatchDecoder(width=4), "an odd `width`, got 4"),
        (lambda: PatchDecoder(momentum=0.0), r"`momentum` in \(0, 1\], got 0.0"),
        (lambda: PatchDecoder(0), "`n_outputs`.*got 0"),
        (lambda: decoder()(torch.rand(3, 5)), r"patches of 54 numbers.*got \(3, 5\)"),
        (lambda: decoder()(torch.rand(1, 54)), "at least 2 rows"),
        (lambda: autoencoder(gen(), quantics=False), "quantics=True"),
        (
            lambda: Autoencoder(TinyEncoder(3), decoder(), shape=SHAPE, generator=gen()),
            "a decoder for 3 numbers.*got one for 2",
        ),
        (
            lambda: Autoencoder(TinyEncoder(), decoder(2), shape=SHAPE, generator=gen()),
            "1 outputs, one per contrast, got 2",
        ),
        (
            lambda: Segmenter(TinyEncoder(), decoder(), shape=SHAPE, generator=gen()),
            "two or more classes, got 1",
        ),
        (
            lambda: segmenter(gen()).loss(
                volumes(gen()), ["a", "b"], torch.zeros(2, 3, 3).long(), torch.zeros(2, 4).long()
            ),
            r"classes of shape \(2, 3\)",
        ),
        (
            lambda: segmenter(gen()).loss(
                volumes(gen()), ["a", "b"], torch.zeros(2, 3, 3).long(), torch.full((2, 3), 3)
            ),
            "classes 0 to 2, got 3 to 3",
        ),
        (
            lambda: autoencoder(gen()).loss(volumes(gen()), ["a", "b"], most=0, generator=gen()),
            "`most`.*got 0",
        ),
        (lambda: class_of(torch.tensor([0, 3])), "labels.*got 3"),
        (lambda: class_of(torch.tensor([0.5])), "got 0.5"),
        (lambda: class_of(torch.tensor([0]), labels=(1, 0)), "rising order"),
        (
            lambda: BalancedPositions(volumes(gen(), channels=2), generator=gen()),
            "a single channel",
        ),
        (lambda: BalancedPositions([], generator=gen()), "got none"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, t: m.slice(t, axis=3, at=0), "got axis 3"),
        (lambda m, t: m.slice(t, axis=1, at=6), r"\(8, 6, 8\), got axis 1 and 6"),
        (lambda m, t: m.rebuild(t, torch.zeros(2, 1, 3).long(), batch=0), "`batch >= 1`"),
        (lambda m, t: m.rebuild(t, torch.zeros(1, 1, 3).long()), "centers of shape"),
        (lambda m, t: m.compress(volumes(gen()), ["a", "a"]), "all different"),
    ],
)
def test_bad_reading_is_one_clear_error(call, message, generator):
    model = autoencoder(generator).eval()
    trains = model.compress(volumes(generator), ["a", "b"])
    with pytest.raises(ValueError, match=message):
        call(model, trains)


def test_patches_are_never_centered_and_old_options_are_grouped(generator):
    options = {"shape": SHAPE, "generator": generator}
    with pytest.warns(FutureWarning, match="search=Search"):
        old = Autoencoder(TinyEncoder(), decoder(), rank=3, looks=2, chunk=9, **options)
    new = Autoencoder(
        TinyEncoder(),
        decoder(),
        search=Search(rank=3, n_sweeps=2),
        reading=Reading(chunk=9),
        **options,
    )
    assert old.latent.search == new.latent.search
    assert old.latent.reading == new.latent.reading == Reading(chunk=9, centered=False)
