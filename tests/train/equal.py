"""Compare checkpoints bit by bit."""

import torch

# What a clock says.
CLOCKS = ("seconds", "step_seconds", "spent", "times")


def assert_equal(a, b, at=""):
    assert type(a) is type(b), at
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, at
        assert torch.equal(a, b), at
    elif isinstance(a, dict):
        assert list(a) == list(b), at
        for key in a:
            if key not in CLOCKS:
                assert_equal(a[key], b[key], f"{at}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), at
        for k, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{at}[{k}]")
    else:
        assert a == b, at
