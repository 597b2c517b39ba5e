"""Every function on every device, with its gradient."""

import torch

from cpic import bottleneck as b
from cpic.tt import IndexSets, dense_entries
from tests.devices import drawn, everywhere, graded, missing, source

SIZES = (4, 3, 5, 4)


def sets(device, rank=2):
    return IndexSets.random(SIZES, rank, n_trains=2, generator=source()).to(device)


def of_entries(device, dtype, function):
    """Results for entries of dense tensors, and the gradient of these."""
    return graded(lambda x: function(dense_entries(x)), drawn(device, dtype, 2, *SIZES))


def trains(device, dtype, name):
    made = b.bottleneck(name, SIZES, rank=2, n_trains=2, generator=source()).to(device)
    assert type(made) is b.BOTTLENECKS[name]
    return of_entries(device, dtype, lambda entries: made(entries).full())


def followed(device, dtype):
    """A search that goes on from its state, with more ranks tried."""
    options = {"rank": 3, "n_trains": 2, "tol": 1e-2}
    one = b.Cross(SIZES, **options, generator=source()).to(device)
    entries = dense_entries(drawn(device, dtype, 2, *SIZES))
    one(entries)
    one.adapt(1)
    other = b.Cross(SIZES, **options, generator=source()).to(device)
    other.load_state_dict(one.state_dict())
    return [other(entries).full(), other.sets, other.condition, other.eval()(entries).full()]


TABLE = {
    "Bottleneck BOTTLENECKS": lambda d, t: [
        drawn(d, t, 1).to(made(SIZES, generator=source()).to(d).device)
        for made in b.BOTTLENECKS.values()
    ],
    "Cross": followed,
    "half_sweep HalfSweep": lambda d, t: of_entries(
        d, t, lambda entries: b.half_sweep(entries, sets(d))
    ),
    "half_sweep, left": lambda d, t: of_entries(
        d, t, lambda entries: b.half_sweep(entries, sets(d), towards="left", tol=0.1).train.full()
    ),
    "chunked": lambda d, t: of_entries(
        d, t, lambda entries: b.half_sweep(b.chunked(entries, 5), sets(d))
    ),
    "grow": lambda d, t: [
        b.grow(sets(d), towards="right", by=2, generator=source()),
        b.grow(sets(d), towards="left", ranks=3, generator=source()),
        b.grow(sets(d), towards="left", points=torch.ones(2, 3, 4, dtype=torch.int64, device=d)),
        drawn(d, t, 1),
    ],
}
for kind in b.BOTTLENECKS:
    words = f"bottleneck {kind} {b.BOTTLENECKS[kind].__name__}"
    TABLE[words] = lambda d, t, name=kind: trains(d, t, name)


test_results_and_gradients_lie_where_the_input_does = everywhere(TABLE)


def test_the_table_is_complete():
    assert not missing(TABLE, b.__all__)
