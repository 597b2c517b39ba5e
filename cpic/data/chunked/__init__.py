"""Volumes in chunks: Zarr arrays on disk, in a zip file or on a server, from untrusted sources.

From the bytes up: `_sources` and `_http` find the store at a path or address, `_reads` fetches from
it (with retries), `_metadata` checks the metadata of an array, `_layout` describes the array
(`_codecs` and `_unpack` its chunks, `_shards` its files), `_opened` creates that description,
`_reader` and `_cache` assemble cubes from chunks, `_zarr` is the volume, `_save` writes one.
"""
