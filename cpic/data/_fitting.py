"""Groups of volumes whose decoded chunks fit together into the cache that they share."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

# A search in one more group costs about as much as decoding 2000 chunks again, from a disk. At
# 256^3, a volume among too many needs about 480 again, so groups of 5 volumes pay.
_LEAST = 5


def fitting(volumes: Sequence[Any], *, least: int = _LEAST) -> list[slice]:
    """Split volumes into groups of neighbors, each as long as the shared caches can hold.

    If the groups are read one after the other, each several times, no chunk is decoded twice,
    except those of a volume that alone is larger than its cache. Volumes without a common cache
    stay together.

    Args:
        volumes: Any volumes, in the order in which they are read.
        least: If the groups would have fewer volumes on average, there is only one.

    Example:
        >>> from cpic.data.stores import ChunkCache
        >>> cache = ChunkCache(2**29)
        >>> volumes = [ZarrVolume(path, cache=cache) for path in paths]  # doctest: +SKIP
        >>> fitting(volumes)  # doctest: +SKIP
        [slice(0, 15), slice(15, 20)]
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
    if least * len(starts) > len(volumes):
        starts = [0]
    return [slice(*ends) for ends in zip(starts, [*starts[1:], len(volumes)], strict=True)]
