"""Two processes on this machine, which speak through a file."""

import traceback

import pytest
import torch
import torch.distributed as dist
from torch.testing import assert_close

from cpic.project import gather, project, update
from cpic.tt import TensorTrain
from tests.project.test_gradient import leaves
from tests.project.test_project import SIZES, random_train

COUNTS = (4, 2)


def whole():
    return random_train(torch.Generator().manual_seed(5), SIZES, 3, sum(COUNTS))


def losses(features):
    """One number a sample, none of which sees the sign of a feature."""
    return features.square().sum(1) + (features**4)[:, 0]


def steps(batch, mine, gather_them):
    """Features of two steps and the sum of the losses of one's own samples."""
    everyone = gather_them(batch)
    first = project(everyone, 3, gradient="exact")
    second = update(first.basis, gather_them(batch.scale(0.5)), max_rank=40)
    loss = losses(first.features[mine]).sum() + losses(second.features[mine]).sum()
    return first.features.detach(), second.features.detach(), loss


def one_process(rank, folder):
    """What a process computes for its share, written to a file."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=len(COUNTS)
    )
    try:
        mine = slice(sum(COUNTS[:rank]), sum(COUNTS[: rank + 1]))
        own = whole()[mine]
        cores = leaves(own)
        first, second, loss = steps(TensorTrain(cores), mine, gather)
        grads = torch.autograd.grad(loss, cores)
        other_ranks = gather(own.round(max_rank=rank + 1)).ranks
        messages = []
        for bad in (
            own.slice(0, 0) if rank else own,
            own.to(torch.float32) if rank else own,
            random_train(torch.Generator().manual_seed(1), SIZES[: 3 + rank], 2, 1),
            TensorTrain([torch.ones(1, 1, 3 + rank, 1)]),
        ):
            try:
                gather(bad)
            except (TypeError, ValueError) as error:
                messages.append(f"{type(error).__name__}: {error}")
        empty = gather(own[:0] if rank else own).n_trains
        found = (first, second, grads, other_ranks, messages, empty)
    except Exception:  # the test shows it
        found = traceback.format_exc()
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(one_process, args=(str(folder),), nprocs=len(COUNTS))
    answers = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]
    for answer in answers:
        assert not isinstance(answer, str), answer
    return answers


def test_features_and_gradients_equal_one_process(found):
    cores = leaves(whole())
    first, second, loss = steps(TensorTrain(cores), slice(None), lambda trains: trains)
    grads = torch.autograd.grad(loss, cores)
    for answer in found:
        assert_close(answer[0], first, rtol=0, atol=1e-12)
        assert_close(answer[1], second, rtol=0, atol=1e-12)
    for site, grad in enumerate(grads):
        shares = torch.cat([answer[2][site] for answer in found])
        assert_close(shares, grad, rtol=0, atol=1e-10)


def test_other_ranks_are_padded(found):
    for answer in found:
        assert answer[3] == (1, 2, 2, 2, 1)


def test_an_empty_share(found):
    assert [answer[5] for answer in found] == [COUNTS[0]] * 2


def test_all_processes_raise_alike(found):
    assert found[0][4] == found[1][4]
    sites, dtype, other_sites, sizes = found[0][4]
    assert sites.startswith("ValueError")
    assert f"got [{SIZES}, {SIZES[1:]}]; resample" in sites
    assert dtype.startswith("TypeError")
    assert "['torch.float64', 'torch.float32']" in dtype
    assert "trains of the same sizes in all processes" in other_sites
    assert "[(3,), (4,)]; resample" in sizes


def test_without_processes_nothing_happens(generator):
    batch = random_train(generator, SIZES, 2, 3)
    assert gather(batch) is batch
