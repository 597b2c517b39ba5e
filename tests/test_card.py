"""The second device holds numbers, and refuses what a GPU would."""

import copy
import io

import pytest
import torch

from tests.card import DEVICE, Card
from tests.devices import check, drawn


@pytest.fixture
def there():
    with Card():
        yield torch.arange(6.0).view(2, 3).to(DEVICE)


SAME = {
    "product": lambda x: x @ x.mT,
    "written to": lambda x: x.clone().index_put_((torch.tensor([0]),), x[:1] + 1),
    "a view that is written to": lambda x: _with_first_row(x.clone()),
    "number of the CPU": lambda x: x * torch.tensor(2.0),
    "indices of the CPU": lambda x: x[torch.tensor([1, 0])],
    "numbers of Python": lambda x: x + x.new_tensor([1, 2, 3]) + torch.tensor(3.0, device=x.device),
    "found places": lambda x: torch.stack(torch.unravel_index((x > 2).nonzero()[:, 0], (2, 3))),
    "several": lambda x: torch.stack(torch.linalg.svd(x)[0].abs().unbind(1)),
    "copy": lambda x: copy.deepcopy(x).to("cpu").to(x.device),
    "copied into": lambda x: torch.zeros(2, 3).copy_(x).to(x.device),
}
REFUSED = {
    "operands": (lambda x: x + torch.ones(3), RuntimeError, "same device"),
    "parts": (lambda x: torch.cat([x, torch.ones(2, 3)]), RuntimeError, "same device"),
    "made without saying where": (lambda x: x + torch.arange(3), RuntimeError, "same device"),
    "indices for the CPU": (lambda x: torch.ones(9)[x.long()], RuntimeError, "same device"),
    "generator": (
        lambda x: torch.rand(3, device=x.device, generator=torch.Generator()),
        RuntimeError,
        "expected a generator on meta",
    ),
    "numpy": (lambda x: x.numpy(), (RuntimeError, TypeError), "numpy"),
    "shape": (lambda x: x.clone().t_(), NotImplementedError, "shapes do not change"),
}


def _with_first_row(x):
    x[0].add_(5).mul_(2)
    return x


@pytest.mark.parametrize("name", SAME)
def test_operations_give_what_they_give_on_the_cpu(name, there):
    found = SAME[name](there)
    assert found.device == DEVICE
    assert found.tolist() == SAME[name](there.cpu()).tolist()


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_gpu_refuses_is_refused(name, there):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call(there)


def test_gradients_and_updates_stay_there(there):
    torch.manual_seed(0)
    nets = [torch.nn.Linear(3, 2)]
    nets.append(copy.deepcopy(nets[0]).to(DEVICE))
    for net, x in zip(nets, (there.cpu(), there), strict=True):
        optimizer = torch.optim.RAdam(net.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
    assert nets[1].weight.grad.device == DEVICE
    assert nets[1].weight.tolist() == nets[0].weight.tolist()


def test_a_file_is_read_onto_the_cpu(there):
    file = io.BytesIO()
    torch.save({"x": there}, file)
    file.seek(0)
    found = torch.load(file, map_location="cpu", weights_only=True)["x"]
    assert found.device.type == "cpu"
    assert torch.equal(found, there.cpu())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda d, t: drawn(d, t, 3) + torch.arange(3),
        lambda d, t: drawn(d, t, 3).cpu(),
        lambda d, t: drawn(d, t, 3) * (2 if d.type == "cpu" else 3),
        lambda d, t: drawn(d, torch.float16, 3),
        lambda d, t: [],
    ],
    ids=["made elsewhere", "left on the CPU", "other numbers", "another type", "nothing"],
)
def test_the_check_fails_on_a_call_that_is_wrong(wrong, there):
    with pytest.raises((AssertionError, RuntimeError)):
        check(wrong, DEVICE, torch.float64)
