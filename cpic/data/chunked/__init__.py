"""Volumes in chunks: Zarr arrays on a disk, in a zip file or behind a server, of anybody's making.

From the bytes up: `_sources` and `_http` find the store at a path or address, `_reads` fetches from
it (again, where that may help), `_metadata` says what is believed of an array, `_layout` describes
it (`_codecs` and `_unpack` its chunks, `_shards` its files), `_opened` makes that description,
`_reader` and `_cache` make cubes of chunks, `_zarr` is the volume, `_save` writes one.
"""
