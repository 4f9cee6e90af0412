"""The key of a model run, made of Provena, user, subject and workflow template, so that it is the same everywhere."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from ivcap_flows.identity import fingerprint, flows_urn, key_of
from ivcap_flows.journal import NewIntent
from ivcap_flows.provena.models import ModelRunRecord
from ivcap_flows.registration.registry import KEY_FIELD, SUBJECT_FIELD

__all__ = ["NOUN", "has_own_key", "key_in", "marked", "new_intent", "run_key", "subject_of"]

NOUN: Final = "model run"
"""The noun of registrations in the journal."""

_RECORD: Final = "model-run-record"


def subject_of(key: str | None, record: ModelRunRecord) -> str:
    """Return the subject of a row: the user's own key, such as an order's URN, else a digest of the record."""
    return key or flows_urn(_RECORD, "sha256:" + fingerprint(record.model_dump(mode="json", exclude_none=True)))


def has_own_key(subject: str) -> bool:
    """Return whether the user chose the key. A row with such a key may have another record the next time."""
    return not subject.startswith(flows_urn(_RECORD, ""))


def run_key(platform: str, account: str, subject: str, workflow: str) -> str:
    """Return the key of a run. The task, the sink and a batch use the same one."""
    return key_of(platform=platform, account=account, scope="account", noun=NOUN, request=_request(subject, workflow))


def new_intent(
    key: str,
    platform: str,
    account: str,
    subject: str,
    workflow: str,
    name: str,
    attempt: tuple[str, str, int] | None,
    platform_time: datetime | None,
) -> NewIntent:
    """Return the intent of a run. `attempt` is the logical run, the attempt and its number, if there is one.

    `platform_time` is Provena's time before the run was looked for there.
    """
    run, attempt_id, number = attempt or (None, None, 0)
    return NewIntent(
        key=key,
        base_key=key,
        noun=NOUN,
        platform=platform,
        account=account,
        scope="account",
        request=_request(subject, workflow),
        subject=name,
        run_id=run,
        attempt_id=attempt_id,
        attempt_number=number,
        platform_time=platform_time,
    )


def marked(body: dict[str, Any], key: str, subject: str) -> dict[str, Any]:
    """Return a record's JSON with the key among its annotations, by which the run is found again."""
    ours = {KEY_FIELD: key}
    if has_own_key(subject):
        ours[SUBJECT_FIELD] = subject
    return {**body, "annotations": {**(body.get("annotations") or {}), **ours}}


def key_in(record: Any) -> str | None:
    """Return the key in a record's JSON, or None."""
    annotations = record.get("annotations") if isinstance(record, dict) else None
    found = annotations.get(KEY_FIELD) if isinstance(annotations, dict) else None
    return found if isinstance(found, str) else None


def _request(subject: str, workflow: str) -> dict[str, str]:
    return {"subject": subject, "workflow-template": workflow}
