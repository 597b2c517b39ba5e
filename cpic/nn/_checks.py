"""What heads ask of their inputs."""

from torch import Tensor, nn


def check_rows(owner: nn.Module, name: str, rows: Tensor, width: int) -> None:
    """Raise unless `rows` is `(K, width)` in the number type of the parameters of `owner`."""
    dtype = next(owner.parameters()).dtype
    if rows.ndim != 2 or rows.shape[1] != width or rows.dtype != dtype:
        raise ValueError(
            f"{type(owner).__name__} needs {name} of shape (K, {width}) and {dtype}, got "
            f"{tuple(rows.shape)} and {rows.dtype}; make it for that width, or cast one of them."
        )


def check_batch_norm(owner: nn.Module, n_rows: int) -> None:
    """Raise where batch statistics of a single row are asked for."""
    if owner.training and n_rows < 2:
        raise ValueError(
            f"{type(owner).__name__} needs at least 2 rows a batch in training mode, for its batch "
            f"norm, got {n_rows}; raise the batch size, drop the last batch, or call `eval()`."
        )


def check_positive(owner: str, **sizes: int) -> None:
    """Raise unless every one of `sizes` is a positive integer."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(
                f"{owner} needs `{name}` to be an integer of at least 1, got {size!r}."
            )
