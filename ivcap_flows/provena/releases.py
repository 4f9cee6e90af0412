"""Approve the release of datasets, and manage who may (data-store-api). Reviewers are ids of PERSONs."""

from __future__ import annotations

from ivcap_flows.errors import ProtocolError
from ivcap_flows.provena.api import Api

__all__ = ["ReleasesApi"]


class ReleasesApi(Api):
    """Approvals of releases. The registry's `releases` lists the datasets that a reviewer is asked about."""

    async def request(self, dataset: str, reviewer: str, *, notes: str) -> None:
        """Ask a system reviewer to approve the release of a dataset, which becomes PENDING.

        Raises NotAuthorizedError if the caller is not an admin of the dataset. Raises BadRequestError for a person who
        is not a system reviewer, for a caller without a linked person, and if the dataset is already pending or
        released.
        """
        wanted = {"dataset_id": dataset, "approver_id": reviewer, "notes": notes}
        await self.call("POST", "/release/approval-request", repeat="keyed", json=wanted)

    async def decide(self, dataset: str, *, approve: bool, notes: str) -> None:
        """Approve or reject a release, as the reviewer who was asked.

        Raises NotAuthorizedError or BadRequestError for anybody else, and for a dataset that waits for no decision.
        """
        wanted = {"dataset_id": dataset, "approve": approve, "notes": notes}
        await self.call("PUT", "/release/action-approval-request", repeat="keyed", json=wanted)

    async def reviewers(self) -> list[str]:
        """Return the persons who may approve releases."""
        found = await self.call_any("GET", "/release/sys-reviewers/list", repeat="idempotent")
        if not isinstance(found, list):
            raise ProtocolError("Provena's list of reviewers is not as its API describes it: it is no list.")
        return [str(person) for person in found]

    async def add_reviewer(self, person: str) -> None:
        """Allow a person to approve releases. Only for system administrators."""
        await self.call_any("POST", "/release/sys-reviewers/add", repeat="idempotent", params={"reviewer_id": person})

    async def remove_reviewer(self, person: str) -> None:
        """Withdraw a person's right to approve releases. Only for system administrators."""
        await self.call_any("DELETE", "/release/sys-reviewers/delete", repeat="keyed", params={"reviewer_id": person})
