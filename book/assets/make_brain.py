"""Draw the picture of the README: `python book/assets/make_brain.py`."""

from pathlib import Path

import torch

from cpic import data, show, tt

brain = data.mni152("t1")
found = tt.cross(
    lambda index: brain.voxels(index).double(),
    brain.shape,
    rank=16,
    method="least_squares",
    generator=torch.Generator().manual_seed(0),
)
rebuilt = found.train.full()[0]
figure = show.triplet(brain.read().double(), rebuilt, axis=2, at=95, window=(0.0, 1.0))
share = int(found.ledger.distinct[0]) / brain.read().numel()
figure.suptitle(f"MNI152, rebuilt from {100 * share:.1f} % of its voxels", y=1.03)
figure.savefig(Path(__file__).with_name("brain.png"), dpi=110, bbox_inches="tight")
