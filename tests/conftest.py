import os

# Small batched linear algebra is many times slower on several threads than on one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
