"""What the verbs about Azure take: blobs and caches, as text or as what it names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rdbkit.azure.resources import Arm, ResourceId, parse_resource_id
from rdbkit.storage.blob_url import BlobUrl, parse_place


def blob_url_of(place: str | BlobUrl) -> BlobUrl:
    """A place that is given as it is, or by its URL.

    Raises: ValueError for a URL that names none; TypeError for what is neither, which is not shown.

    >>> blob_url_of("https://a.blob.core.windows.net/dumps/b.rdb?sig=x")
    BlobUrl('https://a.blob.core.windows.net/dumps/b.rdb')
    """
    if isinstance(place, BlobUrl):
        return place
    if isinstance(place, str):
        return parse_place(place)
    raise TypeError(f"a blob or container is a URL or a BlobUrl, not {type(place).__name__}")


def blob_urls_of(places: str | BlobUrl | Iterable[str | BlobUrl]) -> list[BlobUrl]:
    """One place or several. Raises: as `blob_url_of`."""
    if isinstance(places, str | BlobUrl) or not hasattr(places, "__iter__"):
        return [blob_url_of(places)]  # type: ignore[arg-type]  # whatever else it is, is reported
    return [blob_url_of(place) for place in places]


@contextmanager
def opened_cache(cache: str | ResourceId | Arm, places: Sequence[BlobUrl]) -> Iterator[Arm]:
    """The cache that a resource id names, through ARM of the cloud that the places are in; or an `Arm`, which stays open.

    Raises: ValueError for what is no resource id of a cache; TypeError for anything else; as `Arm`.
    """
    if isinstance(cache, Arm):
        yield cache
        return
    if not isinstance(cache, str | ResourceId):
        raise TypeError(f"a cache is its resource id, as text, or an Arm, not {type(cache).__name__}")
    cloud = next((place.cloud for place in places if place.cloud is not None), "public")
    with Arm(parse_resource_id(cache) if isinstance(cache, str) else cache, cloud=cloud) as arm:
        yield arm
