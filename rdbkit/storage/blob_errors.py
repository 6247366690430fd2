"""What the error codes of the blob service mean, and what to do about them."""

from __future__ import annotations

from typing import Final

#: What to do about uncommitted blocks whose ids have another length than ours: the service takes one length for a blob.
FOREIGN_BLOCKS: Final = (
    "another tool has left blocks there whose ids are of another length, and the service keeps them for a week: drop them with "
    "rdbkit upload --abort URL, or upload under another name"
)
#: By the service's error code: what it means, and what helps.
MEANINGS: Final = {
    "ContainerNotFound": "there is no such container; create it first (az storage container create)",
    "BlobNotFound": "there is no such blob; check the URL, or bring it there (rdbkit upload)",
    "AuthenticationFailed": "the key or the signature is not accepted; a SAS may have expired, or the clock be wrong",
    "AuthorizationFailure": (
        "a wrong key or SAS, or the firewall of the account, or its ban on shared keys: compare the SAS, let this machine's "
        "address in, or use an identity"
    ),
    "AuthorizationPermissionMismatch": (
        "the identity or the SAS may not do this; it takes the role Storage Blob Data Contributor, or a SAS with "
        "create, write and read (and list for a container)"
    ),
    "AuthorizationProtocolMismatch": "the SAS is for https alone",
    "AuthorizationResourceTypeMismatch": "the SAS is not for blobs, or not for this one",
    "AuthorizationServiceMismatch": "the SAS is not for the blob service",
    "AuthorizationSourceIPMismatch": "the SAS is for other addresses than this machine's",
    "KeyBasedAuthenticationNotPermitted": "the account takes no keys; leave the key out, so that an Entra identity is used",
    "InsufficientAccountPermissions": "the identity may not do this; it takes the role Storage Blob Data Contributor",
    "BlobArchived": "the blob is in the archive tier, where nobody can read it; set its tier to Hot first",
    "BlobBeingRehydrated": "the blob is on its way out of the archive tier, which takes hours; run this again then",
    "BlobAlreadyExists": "the blob exists; --overwrite replaces it",
    "ConditionNotMet": "the blob has been changed by somebody else meanwhile; look at it, then run this again",
    "LeaseIdMissing": "somebody has a lease on the blob, and nobody else may change it",
    "InvalidBlobType": "the blob exists and is of another type; delete it first, or choose another name",
    "InvalidBlockList": "blocks that were sent are gone; run this again",
    "InvalidBlobOrBlock": FOREIGN_BLOCKS,
    "Md5Mismatch": "bytes were changed on the way; run this again",
    "AccountIsDisabled": "the storage account is disabled",
    "PublicAccessNotPermitted": "the request has no credentials: give a SAS, a key or an identity",
    "NoAuthenticationInformation": "the request has no credentials: give a SAS, a key or an identity",
    "ServerBusy": "the service is busy; run this again later, with less concurrency",
}
