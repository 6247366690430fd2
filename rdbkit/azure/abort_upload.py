"""`rdbkit upload --abort`: what an upload that broke off has left at the service is dropped, and no blob is changed.

Blocks that were sent and belong to no blob stay for a week. That is what lets an upload go on where it was; but the service takes
ids of one length alone for the blocks of a blob, so that other tools cannot upload under that name as long. No request drops them.
Making a blob does: where there is none, an empty one is made and deleted; where there is one, it is made of its own blocks again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import parse_qs

from rdbkit.azure.arguments import blob_url_of
from rdbkit.azure.credentials import Credentials
from rdbkit.azure.errors import translating_errors
from rdbkit.azure.sas import Signer, patience
from rdbkit.azure.upload import is_own_id, properties_of
from rdbkit.errors import TargetError
from rdbkit.storage.blob_url import BlobUrl
from rdbkit.text import count, first_line

__all__ = ["AbortedUpload", "abort_upload", "check_is_free"]

_BLOCK_BLOB: Final = "BlockBlob"
#: What is noted with the blob that is made to be deleted, so that it is known for that where a run is ended in between.
_MARK: Final = {"rdbkit_aborted_upload": "true"}


@dataclass
class AbortedUpload:
    """What `abort_upload` did.

    Attributes:
        url: of the blob, without secrets.
        blocks, bytes: that were dropped.
        kept: there is a blob of that name, with the content that it had.
    """

    url: str
    blocks: int = 0
    bytes: int = 0
    kept: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


def abort_upload(place: str | BlobUrl, *, credentials: Credentials | None = None) -> AbortedUpload:
    """Drop the blocks of uploads to a blob that broke off, whichever tool has sent them.

    A blob of that name keeps its content, properties, metadata and tags; its etag is another afterwards. An upload that is going on
    fails.

    Args:
        place: the blob, `https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB`, with a SAS or without; or a `BlobUrl`.
        credentials: by default what the environment and the machine have.

    Raises: TargetError where the service refuses or fails, the SAS may not delete what has to be made, or the blob that is there
        was not made of blocks; ValueError for a URL that names no blob; TypeError for what is no place.

    Example:
        print(rdbkit.abort_upload("https://shop.blob.core.windows.net/dumps/dump.rdb").blocks)
    """
    place = blob_url_of(place)
    if place.is_folder:
        raise ValueError(f"{place.url} names no blob")
    used = credentials or Credentials()
    report = AbortedUpload(place.url)
    with translating_errors(place.url), used.service(place, **patience()) as service:
        blob = service.get_blob_client(place.container, place.blob)
        found = properties_of(blob)
        if found is not None and not found.size and found.metadata == _MARK and found.blob_type == _BLOCK_BLOB:
            _delete(blob, place, found.etag)
            found = None
        report.kept = found is not None
        if found is not None and found.blob_type != _BLOCK_BLOB:
            return report  # another type has no blocks
        committed, left = _blocks(blob)
        report.blocks, report.bytes = len(left), sum(block.size for block in left)
        if left and found is None:
            _make_and_delete(blob, place, Signer(used).given(place))
        elif left:
            _check_can_be_made_again(place, found, committed, left)
            _make_again(blob, found, committed)
    return report


def check_is_free(place: BlobUrl, credentials: Credentials, *, overwrite: bool) -> None:
    """See to it that another program can make a block blob there.

    Raises: TargetError for a blob that exists, unless it is to be replaced and can be, and for blocks of an upload that broke off.
    """
    with translating_errors(place.url), credentials.service(place, **patience()) as service:
        blob = service.get_blob_client(place.container, place.blob)
        found = properties_of(blob)
        if found is not None and not overwrite:
            raise TargetError("the blob exists; --overwrite replaces it", source=place.url)
        if found is not None and found.blob_type != _BLOCK_BLOB:
            raise TargetError("the blob exists and is of another type; delete it first", source=place.url)
        left = len(_blocks(blob)[1])
    if left:
        raise TargetError(
            f"an upload that broke off has left {count(left, 'block')}, in the way of other programs: rdbkit upload --abort URL "
            "drops them",
            source=place.url,
        )


def _blocks(blob: Any) -> tuple[list[Any], list[Any]]:
    """The blocks that a blob is made of, and those that are left of uploads."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        committed, left = blob.get_block_list("all")
    except ResourceNotFoundError:
        return [], []
    return list(committed), list(left)


def _make_and_delete(blob: Any, place: BlobUrl, sas: str) -> None:
    """Make an empty blob, where there is none, and delete it."""
    from azure.core import MatchConditions

    rights = parse_qs(sas).get("sp")
    if rights is not None and "d" not in rights[0]:
        raise TargetError(
            f"the SAS allows {rights[0]}, and d is missing: an empty blob is made, which drops the blocks, and has to be deleted",
            source=place.url,
        )
    made = blob.commit_block_list([], metadata=_MARK, match_condition=MatchConditions.IfMissing)
    _delete(blob, place, made["etag"])


def _delete(blob: Any, place: BlobUrl, etag: str) -> None:
    """Delete the blob that was made for that, unless somebody has changed it meanwhile."""
    from azure.core import MatchConditions
    from azure.core.exceptions import AzureError

    try:
        blob.delete_blob(etag=etag, match_condition=MatchConditions.IfNotModified)
    except AzureError as e:
        raise TargetError(
            f"the blocks are dropped, and an empty blob may be left ({first_line(e)}): run this again, or delete it (az storage "
            "blob delete)",
            source=place.url,
        ) from None


def _check_can_be_made_again(place: BlobUrl, found: Any, committed: list[Any], left: list[Any]) -> None:
    """Raise TargetError for a blob that its own blocks would not surely make."""
    if found.has_legal_hold or (found.immutability_policy and found.immutability_policy.expiry_time):
        raise TargetError(
            "the blob that is there is protected by a legal hold or an immutability policy, which it might lose: the service drops "
            "what is left after a week",
            source=place.url,
        )
    why = ""
    if sum(block.size for block in committed) != found.size:  # what was sent in one request has no list of blocks
        why = "was sent in one request and not in blocks"
    # Which of two the service takes by the id of both should not have to matter. Ours have the MD5 of what they are.
    elif {block.id for block in left if not is_own_id(block.id)} & {block.id for block in committed}:
        why = "has a block with the id of one that is left"
    if why:
        raise TargetError(
            f"the blob that is there {why}, so that nothing can be dropped without sending it again: rdbkit upload --overwrite "
            "does, and the service drops what is left after a week",
            source=place.url,
        )


def _make_again(blob: Any, found: Any, committed: list[Any]) -> None:
    """Make a blob of its own blocks, with all that it has, unless somebody has changed it meanwhile."""
    from azure.core import MatchConditions
    from azure.storage.blob import BlobBlock, BlockState, StandardBlobTier

    kept: dict[str, Any] = {"content_settings": found.content_settings, "metadata": found.metadata}
    if found.tag_count:
        kept["tags"] = blob.get_blob_tags()
    if found.blob_tier and not found.blob_tier_inferred:
        kept["standard_blob_tier"] = StandardBlobTier(str(getattr(found.blob_tier, "value", found.blob_tier)))
    if found.encryption_scope:
        kept["encryption_scope"] = found.encryption_scope
    state: Any = BlockState.COMMITTED
    blob.commit_block_list(
        [BlobBlock(block.id, state=state) for block in committed], etag=found.etag,
        match_condition=MatchConditions.IfNotModified, **kept,
    )  # fmt: skip
