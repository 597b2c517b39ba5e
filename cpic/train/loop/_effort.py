"""What a model asked for and read."""

from torch import nn

from cpic.train.loop._batches import Batch


def effort(model: nn.Module, batch: Batch) -> tuple[int, int, int]:
    """Entries asked for and positions encoded so far, and voxels read of the batch's volumes."""
    counts = getattr(model, "counts", None)
    voxels = sum(volume.ledger.voxels for volume in batch["volumes"])
    return getattr(counts, "asked", 0), getattr(counts, "encoded", 0), voxels
