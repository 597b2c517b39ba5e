"""A progress bar, if requested."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

_T = TypeVar("_T")
# False, True (tqdm), or a callable that wraps an iterable and takes options of tqdm.
Progress = bool | Callable[..., Iterable[Any]]


def shown(progress: Progress, items: Iterable[_T], **options: Any) -> Iterable[_T]:
    """The same items, with a progress bar if requested."""
    from tqdm import tqdm

    if callable(progress):
        return progress(items, **options)
    return tqdm(items, disable=not progress, **options)
