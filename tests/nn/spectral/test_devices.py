"""Every public name on every device, with gradients."""

import torch
from torch import nn

from cpic.nn import spectral
from tests.devices import drawn, everywhere, graded, missing


def network(device, dtype, *, change=True, **options):
    """A network with the same numbers on every device."""
    torch.manual_seed(0)
    with torch.device("cpu"):
        net = nn.Sequential(
            nn.Conv2d(2, 4, 3, groups=2),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 3, 3),
            nn.Flatten(),
            nn.Linear(75, 6),
        )
    net.to(device, dtype)
    return spectral.parametrize(net, seed=0, **options).net if change else net


def trained(net, device, dtype):
    """Outputs and gradients in training mode, then outputs in evaluation mode, twice."""
    inputs = drawn(device, dtype, 5, 2, 5, 5)
    found = net(inputs)
    found.square().sum().backward()
    slopes = [parameter.grad for parameter in net.parameters()]
    with torch.no_grad():
        return [found, *slopes, net.eval()(inputs), net(inputs)]


def decayed(device, dtype):
    net = network(device, dtype, rank=3)
    groups = spectral.parameter_groups(net, weight_decay=0.5)
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    net(drawn(device, dtype, 5, 2, 5, 5)).square().sum().backward()
    optimizer.step()
    return net


def compensated(device, dtype):
    net = network(device, dtype, change=False)
    kept = spectral.Compensation(net)
    for _ in range(2):
        kept.step()
    return [*net.parameters(), *kept.spectra.values()]


def normalized(device, dtype):
    with torch.device("cpu"):  # torch starts its iterations by random vectors
        net = network(torch.device("cpu"), dtype, change=False)
        torch.manual_seed(1)
        spectral.spectral_norm(net)
    net.to(device)
    return [net(drawn(device, dtype, 5, 2, 5, 5)), *spectral.spectra(net).values()]


def numbers(device, dtype):
    """Figures, as a tensor on the device: they are no tensors themselves."""
    net = network(device, dtype, rank=3)
    rows = [[row.free, row.original, row.norm, row.stable_rank] for row in spectral.report(net)]
    counts = spectral.compression(net)
    return drawn(device, dtype, 1).new_tensor(
        [*(number for row in rows for number in row), counts.free, counts.percent]
    )


TABLE = {
    "frames": lambda d, t: graded(
        lambda free: spectral.frames(free, rows=6, columns=3), drawn(d, t, 2, 12)
    ),
    "frames, reduced": lambda d, t: graded(
        lambda free: spectral.frames(free, rows=6, columns=3, reduced=True), drawn(d, t, 2, 9)
    ),
    "reflectors Reflectors": lambda d, t: list(
        spectral.reflectors(spectral.frames(drawn(d, t, 2, 12), rows=6, columns=3))
    ),
    "parametrize Surgery": lambda d, t: trained(network(d, t, rank=3), d, t),
    "parametrize, fixed": lambda d, t: trained(
        network(d, t, kind="svdp", rank=3, spectrum="fixed", gain=2.0), d, t
    ),
    "parametrize, direct": lambda d, t: trained(network(d, t, rank=3, apply="direct"), d, t),
    "parametrize, from weights": lambda d, t: trained(
        network(d, t, rank=75, init="weight", gain="keep"), d, t
    ),
    "remove": lambda d, t: trained(spectral.remove(network(d, t, rank=3)), d, t),
    "penalty": lambda d, t: spectral.penalty(network(d, t, rank=3)),
    "penalty, divergence": lambda d, t: spectral.penalty(network(d, t, rank=3), "divergence"),
    "spectra": lambda d, t: spectral.spectra(network(d, t, rank=3)),
    "stable_rank": lambda d, t: spectral.stable_rank(drawn(d, t, 3, 4)),
    "convolution_norm": lambda d, t: graded(
        lambda weight: spectral.convolution_norm(weight, (6, 5)), drawn(d, t, 3, 2, 3, 3)
    ),
    "report LayerReport compression Compression": numbers,
    "Compensation": compensated,
    "parameter_groups": decayed,
    "spectral_norm": normalized,
}

test_results_and_gradients_lie_where_the_input_does = everywhere(TABLE)


def test_weights_are_computed_once_where_the_network_is(device):
    net = network(device, torch.float32, rank=3)
    with spectral.cached(net):
        assert net[4].weight.device == device
        assert net[4].weight is net[4].weight


def test_the_table_is_complete():
    # A count is of no device.
    assert not missing(TABLE, spectral.__all__, besides=["count_free", "cached"])
