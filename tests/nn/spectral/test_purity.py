"""A forward pass changes nothing, and weights are never old: what other libraries rely on."""

import threading
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from cpic.nn import spectral
from cpic.nn.spectral import _factors
from cpic.nn.spectral._weight import spectral_layers, weight_of
from tests.counting import Dispatched


def network(n=3, width=8, **options):
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
    for _ in range(n):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    net = nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1)
    ).double()
    return spectral.parametrize(net, **{"rank": 4, "init": "qr_randn", "seed": 0, **options}).net


def images(n=4, seed=0):
    return torch.randn(
        n, 3, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def slopes(net, loss):
    return torch.autograd.grad(loss, list(net.parameters()), materialize_grads=True)


def plain_twin(net):
    """Outputs as of plain layers with the weights of a network, in its graph."""
    weights = {f"{name}.weight": layer.weight for name, layer, _ in spectral_layers(net)}
    twin = spectral.remove(net, copy=True)

    def call(inputs):
        biases = {n: p for n, p in net.named_parameters() if n.endswith("bias")}
        return torch.func.functional_call(twin, {**weights, **biases}, inputs)

    return call


@pytest.fixture
def counted(monkeypatch):
    """How often frames of one size are made."""
    sizes, make = [], _factors.frames
    monkeypatch.setattr(
        _factors,
        "frames",
        lambda free, **size: (sizes.append(tuple(size.values())), make(free, **size))[1],
    )
    return sizes


@pytest.mark.parametrize("apply", ["auto", "formed", "direct"])
@pytest.mark.parametrize("kind", ["svdp", "sttp"])
def test_two_forward_passes_before_one_backward(kind, apply):
    net = network(kind=kind, apply=apply)
    twin = plain_twin(net)
    expected = slopes(net, twin(images()).sum() - 2 * twin(images(seed=1)).square().sum())
    found = slopes(net, net(images()).sum() - 2 * net(images(seed=1)).square().sum())
    torch.testing.assert_close(found, expected)
    with spectral.cached(net):
        found = slopes(net, net(images()).sum() - 2 * net(images(seed=1)).square().sum())
    torch.testing.assert_close(found, expected)
    found = slopes(net[0], net[0].weight.sum())  # after the block, of a graph of its own
    torch.testing.assert_close(slopes(net[0], net[0].weight.sum()), found)


def test_two_backward_passes_after_two_forward_passes():
    """As of losses of real and generated images, one after the other."""
    net = network()
    first, second = net(images()).sum(), net(images(seed=1)).square().sum()
    both = slopes(net, net(images()).sum() + net(images(seed=1)).square().sum())
    first.backward()
    second.backward()
    torch.testing.assert_close(tuple(p.grad for p in net.parameters()), both)


def test_a_forward_pass_changes_no_state():
    net = network()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    first = net(images())
    torch.testing.assert_close(net(images()), first, rtol=0, atol=0)
    torch.testing.assert_close(net.eval()(images()), first, rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(net(images()), first, rtol=0, atol=0)
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, foreach=False),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
        lambda p: torch.optim.Adam(p, lr=0.1, foreach=True),
        lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    ],
    ids=["sgd", "foreach", "adam foreach", "fused"],
)
def test_weights_are_fresh_after_a_step(optimizer):
    """Also where they were kept, and where the step is the only change."""
    net = network()
    optimizer = optimizer(net.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        net(images()).square().sum().backward()
        with torch.no_grad():
            net(images())  # kept
        optimizer.step()
        with torch.no_grad():
            torch.testing.assert_close(net(images()), plain_twin(deepcopy(net))(images()))


def changed_by(how, net):
    other = network(seed=5)
    parameters = list(net.parameters())
    if how == "load_state_dict":
        net.load_state_dict(other.state_dict())
    elif how == "assign":
        net.load_state_dict(other.state_dict(), assign=True)
    elif how == "in place":
        with torch.no_grad():
            for mine, new in zip(parameters, other.parameters(), strict=True):
                mine.copy_(new)
    elif how == "data":
        for mine, new in zip(parameters, other.parameters(), strict=True):
            mine.data = new.data
    elif how == "assignment":
        for (_, mine, _), (_, new, _) in zip(
            spectral_layers(net), spectral_layers(other), strict=True
        ):
            mine.weight = new.weight
            if mine.bias is not None:
                mine.bias = new.bias
    return other


@pytest.mark.parametrize("how", ["load_state_dict", "assign", "in place", "data", "assignment"])
def test_weights_are_fresh_after_a_change(how):
    net = network(gain=1.0)
    with torch.no_grad():
        before = net(images())
    other = changed_by(how, net) if how != "assignment" else changed_by(how, network(gain=1.0))
    if how == "assignment":
        net, other = network(gain=1.0), network(seed=5, gain=1.0)
        with torch.no_grad():
            net(images())
            changed = dict(zip(spectral_layers(net), spectral_layers(other), strict=True))
            for (_, mine, _), (_, new, _) in changed.items():
                mine.weight, mine.bias = new.weight, new.bias
    with torch.no_grad():
        assert not torch.allclose(net(images()), before)
        torch.testing.assert_close(net(images()), other(images()))


def test_weights_without_gradients_are_kept(counted):
    """In evaluation, for a frozen network, and for one that others are trained through."""
    net = network().eval()
    with torch.no_grad():
        first = net[0].weight
        made = len(counted)
        net(images())
        net(images())
        assert net[0].weight is first
    n_sizes = len(set(counted))
    assert len(counted) <= made + n_sizes
    net.requires_grad_(False)
    counted.clear()
    inputs = images().requires_grad_()
    for _ in range(3):
        net.train()(inputs).sum().backward()
    assert inputs.grad is not None
    assert not counted
    with torch.no_grad():
        net[0].parametrizations.weight.original0.add_(0.1)
    with torch.inference_mode():
        net(images())
    counted.clear()
    net(inputs).sum().backward()  # what inference leaves can be used with gradients
    assert not counted


def test_one_call_makes_all_frames_of_one_size(counted):
    net = network(n=5)
    sizes = {size for _, _, own in spectral_layers(net) for size in own.plan.frames if size.free}
    net(images())
    assert len(counted) == len(set(counted)) == len(sizes)
    counted.clear()
    net[2](torch.randn(1, 8, 4, 4, dtype=torch.float64))  # one layer alone
    assert len(counted) == len({size for size in weight_of(net[2]).plan.frames if size.free})


def test_operations_do_not_grow_with_layers():
    """Nor are numbers read by the host."""
    found = []
    for n in (2, 6, 12):
        net = network(n=n, apply="formed")
        with Dispatched() as counts, spectral.cached(net):
            weights = [layer.weight for _, layer, _ in spectral_layers(net)]
            originals = [
                part for _, _, own in spectral_layers(net) for part in own._computed.sources
            ]
            torch.autograd.grad(sum(weight.sum() for weight in weights), originals)
        assert counts.reads == 0
        # The sum of this test, and views of what is cut apart and put together.
        per_layer = {"sum", "add", "expand", "ones_like", "view", "slice"}
        kinds = {name.split("::")[1].split(".")[0] for name in counts.names}
        assert per_layer <= kinds
        found.append(
            {
                n: c
                for n, c in counts.names.items()
                if n.split("::")[1].split(".")[0] not in per_layer
            }
        )
    assert found[0] == found[1] == found[2]
    assert sum(found[0].values()) < 500


def test_copies_are_apart():
    net = network()
    with torch.no_grad():
        net(images())
    twin = deepcopy(net)
    torch.testing.assert_close(twin(images()), net(images()))
    for mine, other in zip(net.parameters(), twin.parameters(), strict=True):
        assert mine is not other
    with torch.no_grad():
        next(twin.parameters()).add_(1.0)
        assert not torch.allclose(twin(images()), net(images()))
    # torch shares the class of a parametrized layer with its copies.
    expected = net(images())
    plain = spectral.remove(deepcopy(net))
    torch.testing.assert_close(plain(images()), expected)
    torch.testing.assert_close(net(images()), expected)
    torch.testing.assert_close(spectral.remove(net)(images()), expected)


def test_copies_of_a_network_in_use():
    """While its weights belong to a graph."""
    net = network()
    with spectral.cached(net):
        net(images())
        twin = deepcopy(net)
    torch.testing.assert_close(twin(images()), net(images()))


def test_states_load_with_names_and_dtypes():
    net, other = network(spectrum="fixed", gain=1.0), network(spectrum="fixed", gain=1.0, seed=3)
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other(images()), net(images()))
    keys = [key for key in net.state_dict() if key.startswith("0.")]
    assert keys == [
        "0.bias",
        "0.parametrizations.weight.original0",
        "0.parametrizations.weight.original1",
        "0.parametrizations.weight.0.signs",
    ]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rank": 3}, r"layer '0' is parametrized with rank 4 \(sttp\), the state is of rank 3"),
        ({"kind": "svdp"}, "the state is of another parametrization"),
    ],
)
def test_states_of_another_rank_are_refused(options, text):
    with pytest.raises(RuntimeError, match=text):
        network().load_state_dict(network(**options).state_dict())


def test_broken_spectra_are_not_loaded():
    net = network()
    for value in (float("nan"), 0.0):
        state = net.state_dict()
        state["0.parametrizations.weight.original1"] = torch.full(
            (1, 4), value, dtype=torch.float64
        )
        with pytest.raises(RuntimeError, match="singular values"):
            network().load_state_dict(state)


def test_unused_hooks_do_nothing_when_a_pass_fails():
    net = network()
    with pytest.raises(RuntimeError):
        net(torch.zeros(1, 2))
    assert all(own._computed is None for _, _, own in spectral_layers(net))
    net(images()).sum().backward()


def test_networks_inside_networks():
    inner = network()
    outer = nn.Sequential(nn.Conv2d(3, 3, 1).double(), inner)
    spectral.parametrize(outer, rank=2, ignore=["1"], seed=0)
    expected = inner(outer[0](images()))
    torch.testing.assert_close(outer(images()), expected)
    slopes(outer, outer(images()).sum() + inner(images()).sum())
    assert all(own._computed is None for _, _, own in spectral_layers(outer))


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3).double(), nn.Conv2d(8, 8, 3).double()

    def forward(self, inputs, reentrant=None):
        if reentrant is None:
            return self.last(self.first(inputs).relu())
        hidden = checkpoint(self.first, inputs, use_reentrant=reentrant)
        return checkpoint(self.last, hidden.relu(), use_reentrant=reentrant)


def test_checkpointed_activations():
    net = spectral.parametrize(Checkpointed(), rank=3, seed=0).net
    expected = slopes(net, net(images()).square().sum())
    for reentrant in (False, True):
        net.zero_grad()
        net(images().requires_grad_(), reentrant).square().sum().backward()
        torch.testing.assert_close(tuple(p.grad for p in net.parameters()), expected)
    net.zero_grad()
    checkpoint(net, images(), use_reentrant=False).square().sum().backward()
    torch.testing.assert_close(tuple(p.grad for p in net.parameters()), expected)


@pytest.mark.parametrize("apply", ["formed", "direct"])
def test_compiled_networks(apply):
    """The whole graph, without breaks."""
    net = network(n=0, width=4, apply=apply)
    expected = net(images())
    expected_slopes = slopes(net, expected.sum())
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    found = compiled(images())
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(slopes(net, found.sum()), expected_slopes)
    torch._dynamo.reset()


def test_functional_calls_and_transforms():
    net = network()
    parameters = dict(net.named_parameters())
    expected = slopes(net, net(images()).sum())
    with torch.no_grad():
        net(images())  # kept, and of no use inside the transform

    def loss(parameters):
        return torch.func.functional_call(net, parameters, images()).sum()

    found = torch.func.grad(loss)(parameters)
    torch.testing.assert_close(tuple(found.values()), expected)


def test_distributed_training():
    """One process; gradients are those of the network alone."""
    net = network()
    expected = slopes(net, net(images()).square().sum())
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        wrapped = DistributedDataParallel(net)
        for _ in range(2):
            net.zero_grad()
            wrapped(images()).square().sum().backward()
            torch.testing.assert_close(tuple(p.grad for p in net.parameters()), expected)
    finally:
        torch.distributed.destroy_process_group()


def test_threads_have_their_own_passes():
    net, found = network(), {}

    def call(k):
        replica = net._replicate_for_data_parallel()
        replica._modules = dict(net._modules)
        found[k] = replica(images(seed=k))

    threads = [threading.Thread(target=call, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, value in found.items():
        torch.testing.assert_close(value, net(images(seed=k)))


def test_mixed_and_half_precision():
    """Frames are made in single precision, whatever the layers around compute in."""
    net = network().float()
    with torch.autocast("cpu", torch.bfloat16):
        with spectral.cached(net):
            weight = net[0].weight
        found = net(images().float())
    assert weight.dtype == torch.float32
    assert abs(torch.linalg.matrix_norm(weight.detach().flatten(1), 2).item() - 1) < 1e-5
    assert found.dtype == torch.bfloat16
    half = deepcopy(net).to(torch.bfloat16)
    weight = half[0].weight
    assert weight.dtype == torch.bfloat16
    assert abs(torch.linalg.matrix_norm(weight.detach().float().flatten(1), 2).item() - 1) < 1e-2
    half(images().bfloat16()).sum().backward()


def test_running_averages_of_weights():
    """As of a generator: a copy whose numbers follow."""
    net = network()
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    )
    with torch.no_grad():
        average(images())
        for parameter in net.parameters():
            parameter.add_(1.0)
        average.update_parameters(net)
        before = average(images())
        for parameter in net.parameters():
            parameter.add_(1.0)
        average.update_parameters(net)
        assert not torch.allclose(average(images()), before)
        torch.testing.assert_close(average(images()), plain_twin(average.module)(images()))
