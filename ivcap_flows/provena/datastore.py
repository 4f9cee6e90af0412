"""Datasets: mint, change, release, and the way to their files (data-store-api)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

from pydantic import SecretStr

from ivcap_flows.errors import InvalidParameterError
from ivcap_flows.http.concurrency_limit import ConcurrencyLimit
from ivcap_flows.http.session import Session
from ivcap_flows.provena.api import Api, parse
from ivcap_flows.provena.collection_format import CollectionFormat
from ivcap_flows.provena.models import DatasetInfo, Item, Minted, NewVersion
from ivcap_flows.provena.registry import Sort, order
from ivcap_flows.provena.releases import ReleasesApi
from ivcap_flows.provena.wire import Wire

__all__ = ["DataStoreApi", "S3Credentials"]


class S3Credentials(Wire):
    """Keys to the files of one dataset, good until `expiry`; those for writing open its own folder only.

    `console_session_url` opens it in a browser, for whoever has the URL.
    """

    aws_access_key_id: str
    aws_secret_access_key: SecretStr
    aws_session_token: SecretStr
    expiry: datetime
    console_session_url: SecretStr | None = None


class _Presigned(Wire):
    presigned_url: SecretStr


class DataStoreApi(Api):
    """Minting is neither idempotent nor transactional: a late failure leaves a seed item behind.

    `releases` asks for the approval that makes a dataset public, and gives it. `minting` is the limit of mints under
    way, each of which keeps a worker of the server waiting for its other APIs.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.releases = ReleasesApi(session)
        self.minting = ConcurrencyLimit("Mints of datasets with Provena")

    async def mint(self, collection: CollectionFormat) -> Minted:
        """Mint a dataset. The caller must be linked to a person; without, the server answers 500 (UnavailableError).

        Raises InputError before sending, BadRequestError for unknown organisations, dates or approvals that do not fit.
        """
        body = await self.call("POST", "/register/mint-dataset", repeat="keyed", json=collection.body())
        return parse(Minted, body, "answer to a mint")

    async def validate(self, collection: CollectionFormat) -> str | None:
        """What the data store has against a dataset of this metadata, in its words; None where it would take it."""
        path = "/metadata/validate-metadata"
        try:
            body = await self.call("POST", path, repeat="idempotent", json=collection.plain())
        except InvalidParameterError as error:
            return str(error.detail)
        return None if body.get("success") else " ".join(str(body.get("details") or "no reason given").split())

    async def schema(self) -> dict[str, object]:
        """The JSON Schema of a dataset's metadata, as the platform has it."""
        body = await self.call("GET", "/metadata/dataset-schema", repeat="idempotent")
        return dict(body.get("json_schema") or {})

    async def fetch_dataset(self, id: str) -> Item[DatasetInfo]:  # noqa: A002 - the platform's own word
        """One dataset. Raises NotFoundError for an unknown id and for a seed."""
        path = "/registry/items/fetch-dataset"
        body = await self.call("GET", path, repeat="idempotent", params={"handle_id": id}, absent=(200, 400))
        return parse(Item[DatasetInfo], body.get("item"), "dataset")

    async def list(
        self, *, sort: Sort = "CREATED_TIME", ascending: bool = False, page_size: int = 20, limit: int | None = None
    ) -> AsyncIterator[Item[DatasetInfo]]:
        """The datasets that the caller may read, newest first, a page at a time; `limit` is their total."""
        request = order(sort, ascending, None, page_size)
        async for item in self.listed("/registry/items/list", request, "items", limit):
            yield parse(Item[DatasetInfo], item, "listed dataset")

    async def update_metadata(self, id: str, collection: CollectionFormat, *, reason: str) -> None:  # noqa: A002
        """Replace the metadata of a dataset; each time is an entry in its history.

        Fields of a newer server are sent as they were read. Raises InputError before sending, BadRequestError for an
        unknown id and for what the server refuses, NotAuthorizedError (about "item") for a locked one.
        """
        await self.call(
            "POST",
            "/register/update-metadata",
            repeat="keyed",
            params={"handle_id": id, "reason": reason},
            json=collection.body(unknown=True),
        )

    async def revert_metadata(self, id: str, history_id: int, *, reason: str) -> None:  # noqa: A002
        """Give a dataset the metadata again that it had at an entry of its history. Raises as `update_metadata`."""
        wanted = {"id": id, "history_id": history_id, "reason": reason}
        await self.call("PUT", "/register/revert-metadata", repeat="keyed", json=wanted)

    async def version(self, id: str, *, reason: str) -> NewVersion:  # noqa: A002
        """A new version of a dataset, with the same metadata and no files; it is the caller's and not released.

        Raises BadRequestError, naming the next version, for a dataset that has one; afterwards
        `versioning_info.next_version` of the old one tells whether it took.
        """
        body = await self.call("POST", "/register/version", repeat="keyed", json={"id": id, "reason": reason})
        return parse(NewVersion, body, f"new version of {id}")

    async def presigned_url(self, id: str, path: str, *, expires_in: int = 10_800) -> SecretStr:  # noqa: A002
        """A URL that gives one file of a dataset to whoever has it, for `expires_in` seconds (at most 86,400).

        `path` is relative. Raises BadRequestError for a path that is not there, and NotAuthorizedError without the role
        `dataset-data-read`.
        """
        wanted = {"dataset_id": id, "file_path": path, "expires_in": expires_in}
        body = await self.call("POST", "/registry/items/generate-presigned-url", repeat="idempotent", json=wanted)
        return parse(_Presigned, body, "presigned URL").presigned_url

    async def read_credentials(self, id: str, *, console: bool = False) -> S3Credentials:  # noqa: A002
        """Keys to read the files of a dataset, with the URL of a session in the browser if `console`.

        Raises NotAuthorizedError without the role `dataset-data-read`, BadRequestError for an unknown dataset.
        """
        path = "/registry/credentials/generate-read-access-credentials"
        wanted = {"dataset_id": id, "console_session_required": console}
        return _keys(await self.call("POST", path, repeat="idempotent", json=wanted))

    async def write_credentials(self, id: str, *, console: bool = False) -> S3Credentials:  # noqa: A002
        """Keys to change the files of a dataset.

        As `read_credentials`, with the role `dataset-data-write`; ForbiddenError for a dataset that is released or
        waits for it, NotAuthorizedError (about "item") for a locked one.
        """
        path = "/registry/credentials/generate-write-access-credentials"
        wanted = {"dataset_id": id, "console_session_required": console}
        return _keys(await self.call("POST", path, repeat="idempotent", json=wanted))


def _keys(body: dict[str, object]) -> S3Credentials:
    given = body.get("credentials")
    keys = given if isinstance(given, dict) else {}
    return parse(S3Credentials, {**keys, "console_session_url": body.get("console_session_url")}, "answer with keys")
