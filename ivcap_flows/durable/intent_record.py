"""The idempotency record of one intent: what it tells other journals of its effect, and what they tell of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from ivcap_flows.durable.effects import RecordStore
from ivcap_flows.errors import ForbiddenError, PlatformError
from ivcap_flows.identity import canonical, digest, fingerprint_for_reuse
from ivcap_flows.journal import IntentRow
from ivcap_flows.secrets import logger_of

__all__ = ["IntentRecord"]

logger = logger_of("ivcap_flows.durable")

_refused_on: set[tuple[str, str]] = set()
"""The journals and platforms of which the log says that records are refused."""


class IntentRecord:
    """Without a store, or if the platform refuses records, nothing is told and nothing is known of other journals."""

    def __init__(self, intent: IntentRow, store: RecordStore | None, *, journal_id: str, flow: str | None) -> None:
        self._intent, self._store, self._journal_id, self._flow = intent, store, journal_id, flow

    async def claim(self) -> dict[str, Any] | None:
        """Write the record before the effect. Return the content of an earlier one of another journal, if any."""
        # Written before it is read, so that of two journals at least one sees the other. If an earlier holder of the
        # claim may have written, it is read first.
        first = self._intent.fence == 1
        there = None if first else await self.read()
        if there is None and self._store is not None:
            refused = None
            try:
                await self._store.write(self._intent.key, self._content(None, None), first=first)
            except ForbiddenError as error:
                refused = error
            there = await self.read()
            if refused is not None:
                self._do_without(refused)
        return self._unless_ours(there)

    async def of_another(self) -> dict[str, Any] | None:
        """Return the content of another journal's record, if there is one."""
        return self._unless_ours(await self.read())

    async def read(self) -> dict[str, Any] | None:
        """Return the content of the record under the key, whichever journal wrote it."""
        if self._store is None:
            return None
        try:
            return await self._store.read(self._intent.key)
        except ForbiddenError as error:
            self._do_without(error)
            return None

    async def tell(self, urn: str | None, outcome: Any) -> list[str]:
        """Write the outcome into the record. Return what other journals made under its key."""
        key, noun = self._intent.key, self._intent.noun
        others: Sequence[dict[str, Any]] = []
        if self._store is not None:
            try:
                others = await self._store.write(key, self._content(urn, outcome))
            except PlatformError as error:
                logger.warning("The outcome of the %s %s is only in the journal: %s", noun, urn or key, error)
        more = sorted({str(other["urn"]) for other in others if other.get("urn") not in (None, urn)})
        if more:
            logger.warning(
                "Another journal has made the %s %s, too: here it is %s, there %s. `ivcap-flows doctor` names them.",
                *(noun, key, urn, ", ".join(more)),
            )
        return more

    def _unless_ours(self, content: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return the content, or None if it is only this intent's own claim."""
        return None if content is not None and content.get("urn") is None and self._is_ours(content) else content

    def _is_ours(self, content: dict[str, Any]) -> bool:
        """Return whether this intent wrote it, and not one that was lost when the journal was restored from a copy."""
        mine = (self._journal_id, self._intent.created_at.isoformat())
        return (content.get("journal"), content.get("created-at")) == mine

    def _content(self, urn: str | None, outcome: Any) -> dict[str, Any]:
        row = self._intent
        return {
            "key": row.key,
            "journal": self._journal_id,
            "noun": row.noun,
            "scope": row.scope,
            "generation": row.generation,
            "subject": row.subject,
            "discriminator": row.discriminator,
            "request-sha256": self._request_sha256,
            "created-at": row.created_at.isoformat(),
            "urn": urn,
            "outcome": outcome,
            **self._for_reuse,
        }

    @cached_property
    def _request_sha256(self) -> str:
        return digest(canonical(self._intent.request))

    @cached_property
    def _for_reuse(self) -> dict[str, Any]:
        """Return what lets an equal request of anyone in the account find this one, and who asked."""
        row, definition = self._intent, self._intent.definition
        if definition is None:
            return {}
        of = {"platform": row.platform, "account": row.account, "noun": row.noun, "request": row.request}
        return {
            "definition": definition,
            "reuse_fingerprint": fingerprint_for_reuse(definition=definition, **of),
            "run": row.run_id,
            "flow": self._flow,
            "service": row.request.get("service"),
            "policy": row.request.get("policy"),
        }

    def _do_without(self, error: ForbiddenError) -> None:
        self._store = None
        here = self._journal_id, self._intent.platform
        if here not in _refused_on:
            _refused_on.add(here)
            logger.warning(
                "%s refuses idempotency records (%s). Within this journal nothing is sent twice even so. What another "
                "journal sends cannot be known before; `ivcap-flows doctor` finds it afterwards.",
                *(self._intent.platform, error),
            )
