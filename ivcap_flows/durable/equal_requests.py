"""Equal requests under other keys: whose an effect is that shows no key, such as a job.

Two keys may ask for the same, as with two discriminators. Then each of two equal effects could be either's. It makes no
difference which key gets which, as long as no two keys get one, in whichever journals they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ivcap_flows.durable.effects import Found
from ivcap_flows.durable.intent_record import IntentRecord
from ivcap_flows.journal import IntentRow, Journal

__all__ = ["EqualRequests"]

T = TypeVar("T")


@dataclass(frozen=True)
class EqualRequests:
    """What is known of them beside the intent `key`.

    `owned` are the effects of other keys. `rivals` are the other keys that may have an effect and do not know which;
    True if somebody may still get to know it: a live call of this journal, or another journal, which does not say.
    """

    key: str
    owned: frozenset[str]
    rivals: Mapping[str, bool]

    @classmethod
    async def of(cls, journal: Journal, intent: IntentRow, record: IntentRecord, urns: Sequence[str]) -> EqualRequests:
        """Ask the idempotency records, then the journal. `urns` are the effects in question, which were read before.

        Raise InDoubtError if the records that can be read do not reach back to the intent's own.
        """
        records = await record.of_equal_requests()
        known = await journal.ask(journal.intents.find_many, [each["key"] for each in records])
        rivals = await journal.ask(journal.intents.rivals, intent)
        owned = {each["urn"]: each["key"] for each in records if each.get("urn") is not None}
        for each in records:
            row = known.get(each["key"])
            # A journal that was put back to an older copy does not know what it announced itself.
            if each.get("urn") is None and (row is None or each.get("journal") != journal.id):
                rivals[each["key"]] = row is None or row.state != "done"
        settled = {intent.key, *owned.values(), *(key for key, row in known.items() if row.state == "done")}
        others = {urn for urn, key in owned.items() if key != intent.key}
        others |= await journal.ask(journal.intents.outcomes_of_others, intent.key, urns)
        return cls(intent.key, frozenset(others), {key: open_ for key, open_ in rivals.items() if key not in settled})

    def choose(self, alike: Sequence[Found[T]], *, last: bool) -> Found[T] | None:
        """Return which of the effects that are no other key's, oldest first, this key takes; None if that is unclear.

        While a rival may get to know its own, none is taken. At the `last` look, one is if there is one for each. All
        take them in the order of their keys, so that they take different ones.
        """
        if not alike or (any(self.rivals.values()) and not (last and len(alike) > len(self.rivals))):
            return None
        place = sorted({self.key, *self.rivals}).index(self.key)
        return alike[min(place, len(alike) - 1)]
