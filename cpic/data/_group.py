"""The arrays of a Zarr group, such as the levels of an OME-Zarr image, for who opened the group."""

from typing import Any

from cpic._errors import VolumeError
from cpic._trust import DoubtError, parse_json
from cpic.data._store import Piece, Reads

_ARRAYS = ("zarr.json", ".zarray")


def members(reads: Reads) -> list[str] | None:
    """Names of the arrays that a group says or its folder holds; None if it is no group."""
    found, old, attributes = (_read(reads, name) for name in ("zarr.json", ".zgroup", ".zattrs"))
    if found.get("node_type") != "group" and not old:
        return None
    if reads.folder is not None:
        nodes = {path.parent.name for kind in _ARRAYS for path in reads.folder.glob(f"*/{kind}")}
        return sorted(nodes)
    names = _levels(found.get("attributes") or attributes)
    listed = found.get("consolidated_metadata") or _read(reads, ".zmetadata")
    listed = listed.get("metadata") if isinstance(listed, dict) else None
    for key, known in (listed if isinstance(listed, dict) else {}).items():
        if isinstance(known, dict) and known.get("node_type") == "array":
            names.append(key)
        elif key.endswith("/.zarray"):
            names.append(key.removesuffix("/.zarray"))
    return sorted(set(names))


def _read(reads: Reads, name: str) -> dict[str, Any]:
    """Metadata of that name, {} if there are none that can be read."""
    try:
        raw = reads.many([Piece(name)])[0]
        found = parse_json(raw) if raw else {}
    except (VolumeError, DoubtError):
        return {}
    return found if isinstance(found, dict) else {}


def _levels(attributes: Any) -> list[str]:
    """Paths of the levels that the metadata of OME-Zarr name."""
    found = []
    if isinstance(attributes, dict):
        images = attributes.get("ome", attributes)
        images = images.get("multiscales") if isinstance(images, dict) else None
        for image in images if isinstance(images, list) else []:
            levels = image.get("datasets") if isinstance(image, dict) else None
            for level in levels if isinstance(levels, list) else []:
                if isinstance(level, dict) and isinstance(level.get("path"), str):
                    found.append(level["path"][:80])
    return found
