"""Assignment of samples to the batches of an epoch, and of axes to mirror.

All of it depends only on the seed and the number of the epoch: resuming needs no further state.
"""

from collections.abc import Sequence

import torch

from cpic._errors import CohortError


def plan_epoch(
    patients: Sequence[str],
    *,
    batch_size: int,
    min_patients: int,
    drop_last: bool,
    seed: int,
    epoch: int,
) -> list[list[int]]:
    """Indices of the samples of each batch of an epoch.

    Args:
        patients: The patient of each sample.
        batch_size: Samples per batch.
        min_patients: Distinct patients that a batch needs.
        drop_last: Drop the last, incomplete batch; otherwise it is a smaller batch.
        seed: Seed of the run.
        epoch: Number of the epoch.

    Raises:
        CohortError: If no such assignment exists.
    """
    order = torch.randperm(len(patients), generator=_generator(seed, epoch)).tolist()
    # If patients with many samples crowd a batch, their samples are spread evenly.
    for deal in (lambda order, _: order, _dealt):
        batches = cut(deal(order, patients), batch_size, drop_last=drop_last)
        if all(len({patients[k] for k in batch}) >= min_patients for batch in batches):
            return batches
    raise CohortError(
        f"every batch of {batch_size} samples needs {min_patients} patients, as many as the "
        f"rank, and {len(set(patients))} patients with {len(patients)} samples give no such "
        "batches; raise the batch size or lower the rank."
    )


def cut(order: list[int], size: int, *, drop_last: bool) -> list[list[int]]:
    """Batches of a given size, in order; the last, smaller one is kept unless it is dropped."""
    end = len(order) // size * size if drop_last else len(order)
    return [order[k : k + size] for k in range(0, end, size)]


def plan_flips(
    patients: Sequence[str], axes: Sequence[int], *, seed: int, epoch: int
) -> dict[str, tuple[int, ...]]:
    """The axes along which each patient's scan is mirrored, each with probability 1/2."""
    names = list(dict.fromkeys(patients))
    coins = torch.randint(2, (len(names), len(axes)), generator=_generator(~seed, epoch)).tolist()
    return {
        name: tuple(axis for axis, coin in zip(axes, row, strict=True) if coin)
        for name, row in zip(names, coins, strict=True)
    }


def share_of(
    indices: Sequence[int],
    patients: Sequence[str],
    rank: int,
    size: int,
    *,
    may_be_empty: bool = False,
) -> list[int]:
    """The samples of a batch for one of several ranks: those of its patients.

    Raises:
        CohortError: If a process would get no patients, unless it may.
    """
    if size == 1:
        return list(indices)
    names = list(dict.fromkeys(patients[k] for k in indices))
    if len(names) < size and not may_be_empty:
        raise CohortError(
            f"{size} processes need as many patients in each batch, got {len(names)}; raise the "
            "batch size or use fewer processes."
        )
    low, high = rank * len(names) // size, (rank + 1) * len(names) // size
    mine = set(names[low:high])
    return [k for k in indices if patients[k] in mine]


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)


def _dealt(order: list[int], patients: Sequence[str]) -> list[int]:
    """The samples of each patient spread evenly over the epoch."""
    places: dict[str, list[int]] = {}
    for place, k in enumerate(order):
        places.setdefault(patients[k], []).append(place)
    # The j-th of m samples of a patient is placed at (j + offset) / m of the epoch; the position of
    # the first one is as random as the order, and serves as the offset.
    at = {}
    for own in places.values():
        offset = own[0] / len(order) % 1
        at.update({order[place]: (j + offset) / len(own) for j, place in enumerate(own)})
    return sorted(order, key=lambda k: at[k])
