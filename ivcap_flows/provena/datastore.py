"""Datasets (data-store-api)."""

from __future__ import annotations

from ivcap_flows.provena.api import Api, parse
from ivcap_flows.provena.collection_format import CollectionFormat
from ivcap_flows.provena.models import DatasetInfo, Item, Minted

__all__ = ["DataStoreApi"]


class DataStoreApi(Api):
    """Minting is neither idempotent nor transactional: a late failure leaves a seed item behind."""

    async def mint(self, collection: CollectionFormat) -> Minted:
        """Mint a dataset. The caller must be linked to a person; without, the server answers 500 (UnavailableError).

        Raises InputError before sending, BadRequestError for unknown organisations, dates or approvals that do not fit.
        """
        body = await self.call("POST", "/register/mint-dataset", repeat="keyed", json=collection.body())
        return parse(Minted, body, "answer to a mint")

    async def fetch_dataset(self, id: str) -> Item[DatasetInfo]:  # noqa: A002 - the platform's own word
        """One dataset. Raises BadRequestError for an unknown id."""
        body = await self.call("GET", "/registry/items/fetch-dataset", repeat="idempotent", params={"handle_id": id})
        return parse(Item[DatasetInfo], body.get("item"), "dataset")
