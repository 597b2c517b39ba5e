"""Checks of the inputs of heads."""

from collections.abc import Sequence

from torch import Tensor, nn

from cpic._errors import VolumeError
from cpic.data._together import check_strides
from cpic.nn._readable import Shaped


def check_rows(owner: nn.Module, name: str, rows: Tensor, width: int) -> None:
    """Raise unless `rows` is `(K, width)` in the dtype of the parameters of `owner`."""
    dtype = next(owner.parameters()).dtype
    if rows.ndim != 2 or rows.shape[1] != width or rows.dtype != dtype:
        raise ValueError(
            f"{type(owner).__name__} needs {name} of shape (K, {width}) and {dtype}, got "
            f"{tuple(rows.shape)} and {rows.dtype}; make it for that width, or cast one of them."
        )


def check_cohort(
    volumes: Sequence[Shaped], names: Sequence[str], shape: tuple[int, ...], contrasts: int
) -> None:
    """Raise unless C-PIC can take these volumes, each under a name of its own."""
    if len(volumes) != len(names) or len(set(names)) != len(names) or not names:
        raise ValueError(
            f"CPIC needs one name for each volume, all different, got {len(volumes)} volumes "
            f"and {len(set(names))} different names of {len(names)}; samples of one volume "
            "share its name through `rows`."
        )
    for name, volume in zip(names, volumes, strict=True):
        if (tuple(volume.shape), volume.channels) != (shape, contrasts):
            raise ValueError(
                f"CPIC needs volumes of shape {shape} with {contrasts} channels, got "
                f"{tuple(volume.shape)} with {volume.channels} for {name}; prepare all of "
                "them on one grid."
            )


def check_volumes(owner: nn.Module, volumes: Tensor, in_channels: int, n_axes: int) -> None:
    """Raise unless `volumes` are `(K, in_channels, *shape)` with `n_axes` axes."""
    dtype = next(owner.parameters()).dtype
    fits = volumes.ndim == n_axes + 2 and volumes.shape[1] == in_channels
    if not fits or volumes.dtype != dtype:
        raise ValueError(
            f"{type(owner).__name__} needs volumes (K, {in_channels}, {n_axes} sizes) of {dtype}, "
            f"got {tuple(volumes.shape)} of {volumes.dtype}; add the axis of the contrasts with "
            "`unsqueeze(1)`, or cast."
        )


def check_batch_norm(owner: nn.Module, n_rows: int) -> None:
    """Raise if batch statistics of a single row are requested."""
    if owner.training and n_rows < 2:
        raise ValueError(
            f"{type(owner).__name__} needs at least 2 rows per batch in training mode, for its "
            f"batch norm, got {n_rows}; raise the batch size, drop the last batch, or call "
            "`eval()`."
        )


def check_positive(owner: str, *, least: int = 1, **sizes: int) -> None:
    """Raise unless every one of `sizes` is an integer of at least `least`."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < least:
            raise ValueError(
                f"{owner} needs `{name}` to be an integer of at least {least}, got {size!r}."
            )


def check_odd(owner: str, name: str, size: int, middle: str) -> None:
    """Raise unless `size` is odd, so that there is a middle position."""
    if size % 2 == 0:
        raise ValueError(f"{owner} needs an odd `{name}`, got {size}; {middle} in its middle.")


def check_scales(owner: str, scales: Sequence[int]) -> None:
    """Raise unless these are strides of cubes that can be read."""
    try:
        check_strides(owner, scales, "scales")
    except VolumeError as error:
        raise ValueError(str(error)) from None


def check_reading(owner: str, padding: str, chunk: int | None) -> None:
    """Raise unless the options for reading volumes are valid."""
    if padding not in ("zero", "encode") or (chunk is not None and chunk < 1):
        raise ValueError(
            f'{owner} needs padding "zero" or "encode" and `chunk >= 1` or None, got {padding!r} '
            f"and {chunk}."
        )
