"""Errors about a file or folder, with the same wording in all readers."""

import contextlib
import os
from collections.abc import Callable, Iterator

from cpic._errors import VolumeError
from cpic._trust import DoubtError


def broken(
    path: str | os.PathLike, fault: str, advice: str = "copy or download it again"
) -> VolumeError:
    """The error about a file with invalid content."""
    return VolumeError(f"{path} {fault}; {advice}.")


@contextlib.contextmanager
def reading(
    path: str | os.PathLike, kind: Callable[[str], Exception] = VolumeError
) -> Iterator[None]:
    """Turn any failed read of a file or folder in this block into one error of this kind."""
    try:
        yield
    except DoubtError as error:
        raise kind(f"{path} {error}.") from error
    except OSError as error:
        raise kind(
            f"{path} cannot be read ({error.strerror or error}); check the path and your "
            "permissions."
        ) from error
