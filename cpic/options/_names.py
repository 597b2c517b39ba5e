"""Names of options: unknown names are rejected with the closest known one."""

import difflib
from collections.abc import Collection


def check_name(name: object, known: Collection[str], *, where: str) -> None:
    """Raise unless a setting is known; the message names the closest known one.

    Raises:
        ValueError: If the setting is unknown.
    """
    if name not in known:
        raise ValueError(
            f"{where}: there is no setting {str(name)!r}{nearest(str(name), known)}; the settings "
            f"are {', '.join(sorted(known))}."
        )


def nearest(name: str, known: Collection[str]) -> str:
    """A question with the known name closest to this one; empty if none is close."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""
