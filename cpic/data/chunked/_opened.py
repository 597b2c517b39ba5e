"""Open the array of a store, or suggest what to open instead, such as the levels of an image."""

import zipfile
from typing import Any

from cpic._errors import VolumeError
from cpic._trust import DAMAGED, DoubtError, parse_json
from cpic.data.chunked._failed import sentence
from cpic.data.chunked._layout import Layout
from cpic.data.chunked._metadata import check_metadata
from cpic.data.chunked._reads import Piece, Reads

_FILES = ("zarr.json", ".zarray", ".zattrs")
# Raised by zarr for invalid metadata, RecursionError and NotImplementedError included.
_SENSELESS = (*DAMAGED, ImportError, OSError, zipfile.BadZipFile)
# Number of arrays of a group that an error lists.
_NAMED = 10


def opened(reads: Reads) -> Layout:
    """The layout of the array in a store, after a check of its metadata.

    Raises:
        VolumeError: If there is none, or its metadata are invalid.
    """
    try:
        layout = _described(reads)
    except VolumeError:
        raise
    except _SENSELESS as error:
        raise VolumeError(
            f"{reads.address} cannot be opened as a Zarr array ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}); its metadata is damaged or was made by "
            "another version, copy or export it again."
        ) from None
    if layout is None:
        raise VolumeError(_otherwise(reads))
    reads.take_missing()
    reads.limit = layout.file_bytes
    return layout


def _described(reads: Reads) -> Layout | None:
    import zarr
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    from cpic.data.chunked._codecs import layout_of

    raw = reads.many([Piece(name) for name in _FILES])
    files = {name: text for name, text in zip(_FILES, raw, strict=True) if text is not None}
    kinds = {}
    for name, text in files.items():
        try:
            kinds[name] = check_metadata(name, text).get("node_type")
        except DoubtError as error:
            raise VolumeError(sentence(reads, name, error, 1)) from None
    if kinds.get("zarr.json", "group") == "group" and ".zarray" not in files:
        return None
    buffer = default_buffer_prototype().buffer
    # Zarr gets the files that were checked, and no others.
    store = MemoryStore({name: buffer.from_bytes(files[name]) for name in files})
    return layout_of(zarr.open_array(store, mode="r"))


def _otherwise(reads: Reads) -> str:
    """Suggest what to open instead of a store without an array."""
    files = ("zarr.json", ".zgroup", ".zattrs", ".zmetadata")
    found, old, attributes, listed = (_read(reads, name) for name in files)
    group = ", but a group" if old or found.get("node_type") == "group" else ""
    names = _lying(reads)
    if group and not names:
        names = _levels(_as(dict, found.get("attributes")) or attributes)
        names += _consolidated(found.get("consolidated_metadata") or listed)
    shown = [name if name.isprintable() else repr(name) for name in sorted(set(names))]
    todo = "the folder that holds zarr.json or .zarray of the array"
    if shown:
        todo = "one of its arrays: " + ", ".join(f"{reads.address}/{n}" for n in shown[:_NAMED])
        todo += f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else ""
    return f"there is no Zarr array at {reads.address}{group}; give {todo}."


def _lying(reads: Reads) -> list[str]:
    """Names of the folders with metadata in a folder or zip file."""
    from zarr.storage import ZipStore

    kinds = ("zarr.json", ".zarray")
    if reads.folder is not None:
        return [path.parent.name for kind in kinds for path in reads.folder.glob(f"*/{kind}")]
    if not isinstance(reads.store, ZipStore):
        return []
    inside = (name for name in reads.store._zf.namelist() if name.startswith(reads.prefix))
    paths = (name.removeprefix(reads.prefix).split("/") for name in inside)
    return [parts[0] for parts in paths if len(parts) == 2 and parts[1] in kinds]


def _consolidated(listed: Any) -> list[str]:
    """Names of the arrays whose metadata are in a group."""
    nodes = _as(dict, _as(dict, listed).get("metadata"))
    arrays = [key for key, known in nodes.items() if _as(dict, known).get("node_type") == "array"]
    ending = "/.zarray"
    return arrays + [key.removesuffix(ending) for key in nodes if key.endswith(ending)]


def _levels(attributes: Any) -> list[str]:
    """Paths of the levels listed in OME-Zarr metadata."""
    images = _as(list, _as(dict, attributes.get("ome", attributes)).get("multiscales"))
    levels = [level for image in images for level in _as(list, _as(dict, image).get("datasets"))]
    paths = [_as(dict, level).get("path") for level in levels]
    return [path[:80] for path in paths if isinstance(path, str)]


def _read(reads: Reads, name: str) -> dict[str, Any]:
    """Metadata of this name, {} if they cannot be read."""
    try:
        raw = reads.many([Piece(name)])[0]
        return _as(dict, parse_json(raw) if raw else {})
    except (VolumeError, DoubtError):
        return {}


def _as(kind: type, value: Any) -> Any:
    """The value if it is of this kind, otherwise an empty one."""
    return value if isinstance(value, kind) else kind()
