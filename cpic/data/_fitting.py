"""Groups of volumes whose decoded chunks fit together into the cache that they share."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any


def fitting(volumes: Sequence[Any]) -> list[slice]:
    """Split volumes into groups of neighbors, each as long as the shared caches can hold.

    If the groups are read one after the other, each several times, no chunk is decoded twice,
    except those of a volume that alone is larger than its cache. Volumes without a common cache
    stay together.

    Example:
        >>> from cpic.data.stores import ChunkCache
        >>> cache = ChunkCache(2**29)
        >>> volumes = [ZarrVolume(path, cache=cache) for path in paths]  # doctest: +SKIP
        >>> fitting(volumes)  # doctest: +SKIP
        [slice(0, 8), slice(8, 16), slice(16, 20)]
    """
    starts: list[int] = [0]
    held: dict[tuple[Any, Hashable], int] = {}
    for k, volume in enumerate(volumes):
        own = getattr(volume, "_cached", dict)()
        shared, spent = {cache for cache, _ in held}, Counter()
        for (cache, _), n_bytes in (held | own).items():
            spent[cache] += n_bytes
        fresh = {cache for cache, _ in own.keys() - held.keys()}
        if any(spent[cache] > cache.limit_bytes for cache in fresh & shared):
            starts.append(k)
            held = {}
        held |= own
    return [slice(*ends) for ends in zip(starts, [*starts[1:], len(volumes)], strict=True)]
