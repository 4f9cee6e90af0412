"""The idempotency record of one intent: what it tells other journals of its effect, and what they tell of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any

from ivcap_flows.durable.effects import RecordStore
from ivcap_flows.durable.wording import decide
from ivcap_flows.errors import ForbiddenError, InDoubtError, PlatformError
from ivcap_flows.identity import (
    RECORD_VERSION,
    canonical,
    digest,
    fingerprint_for_reuse,
    foremost,
    same_claim,
    same_intent,
    unsuperseded,
)
from ivcap_flows.journal import IntentRow
from ivcap_flows.secrets import logger_of

__all__ = ["IntentRecord"]

logger = logger_of("ivcap_flows.durable")

_said: set[tuple[str, str, str]] = set()
"""What the log says once for a journal and a platform."""


class IntentRecord:
    """Without a store, or if the platform refuses records, nothing is told and nothing is known of other journals."""

    def __init__(self, intent: IntentRow, store: RecordStore | None, *, journal_id: str, flow: str | None) -> None:
        self._intent, self._store, self._journal_id, self._flow = intent, store, journal_id, flow
        self._lost = [] if intent.urn is None else [intent.urn]
        """What the platform has lost, and what else the records name that nobody uses any more."""

    @property
    def shows_within(self) -> float:
        """Seconds for which whoever announces a send may look for its own record."""
        return 0.0 if self._store is None else self._store.shows_within

    async def announce(self, send: int, *, refused: bool, looked: bool) -> tuple[dict[str, Any] | None, int]:
        """Write a claim before a send, the first or another. Return the record of an effect that is there already, else
        how many claims the send has to wait for.

        Each that came before, since its holder waits for those before it, and may send then; whether it lives cannot be
        known. For each of them that takes `shows_within`, for which its holder may look for its own record, and then
        the visibility delay of what it sends. None after claims of this holder alone. Those of holders before it in
        this journal count until it has `looked` for a visibility delay, and not at all if the platform `refused` what
        the last one sent.
        """
        if self._store is None:
            return None, 0
        own = {**self._content(None, None), "send": send}
        try:
            # Written before it is read, so that of two journals at least one sees the other.
            records = await self._store.write(self._intent.key, own, first=self._intent.fence == 1 and send == 1)
        except ForbiddenError as error:
            # To read may be allowed.
            records = await self._read()
            self._do_without(error)
        there = self._answer(records, refused=refused)
        if there is not None and there.get("urn") is not None:
            return there, 0
        if not any(same_claim(one, own) for one in records):
            self._say_unlisted()
        before = [one for one in takewhile(lambda one: not same_claim(one, own), records) if one.get("urn") is None]
        if refused:
            before = [one for one in before if not self._is_claim_before(one)]
        others = [one for one in before if one.get("claim") != own["claim"]]
        if looked:
            others = [one for one in others if not self._is_claim_before(one)]
        return None, len(before) if others else 0

    async def earlier(self, *, refused: bool) -> dict[str, Any] | None:
        """Return the record that counts before anything is announced."""
        return self._answer(await self._read(), refused=refused)

    async def read(self) -> dict[str, Any] | None:
        """Return the content of the record that counts under the key, whichever journal wrote it.

        None if that names what the platform has lost: the outcome of this intent will supersede it.
        """
        return self._answer(await self._read())

    def _answer(self, records: Sequence[dict[str, Any]], *, refused: bool = False) -> dict[str, Any] | None:
        there = foremost(record for record in records if not (refused and self._is_claim_before(record)))
        if there is None or there.get("urn") is None or there["urn"] != self._intent.urn:
            return there
        # All of them: else an older one that nobody uses would count from now on.
        self._lost = sorted({str(record["urn"]) for record in records if record.get("urn") is not None})
        return None

    async def _read(self) -> Sequence[dict[str, Any]]:
        if self._store is None:
            return []
        try:
            return await self._store.read(self._intent.key)
        except ForbiddenError as error:
            self._do_without(error)
            return []

    async def of_equal_requests(self) -> Sequence[dict[str, Any]]:
        """Return the contents of the records that equal requests may have made since this one was announced.

        Raise InDoubtError if some of them cannot be read.
        """
        if self._store is None:
            return []
        key, noun = self._intent.key, self._intent.noun
        try:
            records = await self._store.equal(key, noun, self._request_sha256)
        except ForbiddenError as error:
            self._do_without(error)
            return []
        if records is None:
            raise InDoubtError(
                f"It is not known whether the {noun} {key} took effect: {self._intent.platform} selects no records by "
                f"their content, and has too many new ones to read all. {decide(key)}",
                key=key,
                candidates=[],
            )
        return records

    async def tell(self, urn: str | None, outcome: Any) -> list[str]:
        """Write the outcome of what was announced. Return what else was made under its key.

        If the platform fails, the outcome stays in the journal alone: the claim is there for others to see.
        """
        try:
            return self._others(await self._write(urn, outcome), urn)
        except PlatformError as error:
            noun, effect = self._intent.noun, urn or self._intent.key
            logger.warning("The outcome of the %s %s is only in the journal: %s", noun, effect, error)
            return []

    async def agree(self, urn: str | None, outcome: Any) -> tuple[dict[str, Any] | None, list[str]]:
        """Write the outcome of what was not announced. Return the record that counts, and what it does not name.

        Every journal writes before it reads, so all take the effect of the same record. Without an answer of the
        platform nothing is agreed on: the PlatformError is raised.
        """
        try:
            records = await self._write(urn, outcome)
        except ForbiddenError as error:
            self._do_without(error)
            records = []
        if not any(record.get("urn") == urn for record in records):
            self._say_unlisted()
        counts = foremost(record for record in records if record.get("urn") is not None)
        return counts, self._others(records, urn if counts is None else counts["urn"])

    async def _write(self, urn: str | None, outcome: Any) -> Sequence[dict[str, Any]]:
        if self._store is None:
            return []
        return await self._store.write(self._intent.key, self._content(urn, outcome))

    def _others(self, records: Sequence[dict[str, Any]], urn: str | None) -> list[str]:
        """Return what the records name beside the effect that counts here, and say so."""
        more = sorted({str(each["urn"]) for each in unsuperseded(records) if each.get("urn") not in (None, urn)})
        if more:
            logger.warning(
                "The %s %s was made more than once: here it is %s, and there is %s. `ivcap-flows doctor` names them.",
                *(self._intent.noun, self._intent.key, urn, ", ".join(more)),
            )
        return more

    def _is_claim_before(self, record: dict[str, Any]) -> bool:
        """Return whether an earlier holder of this intent wrote it, and no outcome."""
        own = self._content(None, None)
        return record.get("urn") is None and same_intent(record, own) and record.get("fence", 0) < own["fence"]

    def _content(self, urn: str | None, outcome: Any) -> dict[str, Any]:
        row = self._intent
        return {
            "version": RECORD_VERSION,
            "key": row.key,
            "journal": self._journal_id,
            "noun": row.noun,
            "scope": row.scope,
            "generation": row.generation,
            "subject": row.subject,
            "discriminator": row.discriminator,
            "request-sha256": self._request_sha256,
            "created-at": row.created_at.isoformat(),
            "claim": row.token,
            "fence": row.fence,
            "urn": urn,
            "outcome": outcome,
            **({"supersedes": self._lost} if self._lost and urn != row.urn else {}),
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
        self._say_once(
            "%s refuses idempotency records (%s). Within this journal nothing is sent twice even so. What another "
            "journal sends cannot be known before; `ivcap-flows doctor` finds it afterwards.",
            *(self._intent.platform, error),
        )

    def _say_unlisted(self) -> None:
        if self._store is not None:
            self._say_once(
                "%s has accepted an idempotency record, and does not list it after %.0f s. Within this journal nothing "
                "is sent twice even so. What another journal sends at the same time is not seen; `ivcap-flows doctor` "
                "counts what is not listed.",
                *(self._intent.platform, self.shows_within),
            )

    def _say_once(self, text: str, *about: object) -> None:
        said = self._journal_id, self._intent.platform, text
        if said not in _said:
            _said.add(said)
            logger.warning(text, *about)
