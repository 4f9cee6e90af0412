"""Datasets: mint, change and release them, and get access to their files (data-store-api)."""

from __future__ import annotations

from datetime import datetime

from pydantic import SecretStr

from ivcap_flows.http.concurrency_limit import ConcurrencyLimit
from ivcap_flows.http.session import Session
from ivcap_flows.provena.api import Api, parse
from ivcap_flows.provena.collection_format import CollectionFormat
from ivcap_flows.provena.models import DatasetInfo, Item, Minted, NewVersion
from ivcap_flows.provena.wire import Wire

__all__ = ["DataStoreApi", "S3Credentials"]


class S3Credentials(Wire):
    """Keys to the files of one dataset, valid until `expiry`. Keys for writing only give access to its own folder."""

    aws_access_key_id: str
    aws_secret_access_key: SecretStr
    aws_session_token: SecretStr
    expiry: datetime


class DataStoreApi(Api):
    """Datasets. Minting is neither idempotent nor transactional: a late failure leaves a seed item.

    `minting` limits the mints in progress, since each one blocks a worker of the server while it calls Provena's other
    APIs.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.minting = ConcurrencyLimit("Mints of datasets with Provena")

    async def mint(self, collection: CollectionFormat) -> Minted:
        """Mint a dataset. The caller must be linked to a person; otherwise the server replies 500 (UnavailableError).

        Raises InputError before sending, and BadRequestError for unknown organisations, or dates or approvals that
        conflict.
        """
        path = "/register/mint-dataset"
        body = await self.call("POST", path, repeat="keyed", json=collection.body(), creates="handle")
        return parse(Minted, body, "answer to a mint")

    async def fetch_dataset(self, id: str) -> Item[DatasetInfo]:  # noqa: A002 - the platform's own word
        """Read one dataset. Raises NotFoundError for an unknown id and for a seed."""
        path = "/registry/items/fetch-dataset"
        body = await self.call("GET", path, repeat="idempotent", params={"handle_id": id}, absent=(200, 400))
        return parse(Item[DatasetInfo], body.get("item"), "dataset")

    async def update_metadata(self, id: str, collection: CollectionFormat, *, reason: str) -> None:  # noqa: A002
        """Replace the metadata of a dataset; each update is an entry in its history.

        Unknown fields of a newer server are sent as they were read. Raises InputError before sending, BadRequestError
        for an unknown id and for what the server refuses, and NotAuthorizedError (about "item") for a locked dataset.
        """
        await self.call(
            "POST",
            "/register/update-metadata",
            repeat="keyed",
            params={"handle_id": id, "reason": reason},
            json=collection.body(unknown=True),
        )

    async def version(self, id: str, *, reason: str) -> NewVersion:  # noqa: A002
        """Create a new version of a dataset, with the same metadata and no files.

        The caller owns it; it is not released. Raises BadRequestError, with the id of the next version, for a dataset
        that already has one. After a lost reply, `versioning_info.next_version` of the old dataset tells whether the
        call succeeded.
        """
        body = await self.call("POST", "/register/version", repeat="keyed", json={"id": id, "reason": reason})
        return parse(NewVersion, body, f"new version of {id}")

    async def read_credentials(self, id: str) -> S3Credentials:  # noqa: A002
        """Return keys to read the files of a dataset.

        Raises NotAuthorizedError without the role `dataset-data-read`, BadRequestError for an unknown dataset.
        """
        path = "/registry/credentials/generate-read-access-credentials"
        wanted = {"dataset_id": id, "console_session_required": False}
        return _keys(await self.call("POST", path, repeat="idempotent", json=wanted))

    async def write_credentials(self, id: str) -> S3Credentials:  # noqa: A002
        """Return keys to change the files of a dataset.

        Raises the same errors as `read_credentials`, for the role `dataset-data-write`; also ForbiddenError for a
        dataset that is released or waits for release, and NotAuthorizedError (about "item") for a locked one.
        """
        path = "/registry/credentials/generate-write-access-credentials"
        wanted = {"dataset_id": id, "console_session_required": False}
        return _keys(await self.call("POST", path, repeat="idempotent", json=wanted))


def _keys(body: dict[str, object]) -> S3Credentials:
    return parse(S3Credentials, body.get("credentials"), "answer with keys")
