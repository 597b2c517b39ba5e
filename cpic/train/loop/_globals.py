"""Global settings of torch and Lightning, for as long as a fold is trained."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

import torch

# Lightning uses a name that torch deprecates; and whether a GPU is used is for the caller to say.
_IGNORED = {
    ".*LeafSpec.*": FutureWarning,
    "GPU available but not used.*": UserWarning,
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's messages about other products and devices, but not its warnings."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message, category in _IGNORED.items():
                warnings.filterwarnings("ignore", message=message, category=category)
            yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def matmul_precision(bits: int, *, on_gpu: bool) -> Iterator[None]:
    """On a GPU, products of 32-bit numbers in TF32, as torch makes convolutions; else no change.

    Only networks have such numbers: trains, index sets and features have 64 bits.
    """
    before = torch.get_float32_matmul_precision()
    if on_gpu and bits == 32:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
