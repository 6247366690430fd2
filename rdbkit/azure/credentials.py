"""What opens a storage account, and clients of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rdbkit.azure.errors import missing_package
from rdbkit.storage import credentials
from rdbkit.storage.blob_url import BlobUrl


@dataclass(frozen=True)
class Credentials(credentials.Credentials):
    """What opens an account, for the clients of the SDK too; its attributes are those of `rdbkit.storage.credentials`."""

    def __repr__(self) -> str:
        return "Credentials(...)"

    def service(self, place: BlobUrl, **settings: Any) -> Any:
        """A `BlobServiceClient` of the account of `place`.

        Raises: TargetError where the packages are missing, or no identity is found; ValueError for a connection string of another
            account, and for a key that is none.
        """
        try:
            from azure.storage.blob import BlobServiceClient
        except ImportError as e:
            raise missing_package(e) from None
        access = self.access(place)
        credential = access.token or access.sas
        if access.key:
            credential = {"account_name": access.account, "account_key": access.key}
        return BlobServiceClient(place.account, credential=credential, **settings)
