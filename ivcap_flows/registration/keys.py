"""The key of a model run, made of Provena, user, subject and workflow template, so that it is the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ivcap_flows.identity import fingerprint, flows_urn, key_of
from ivcap_flows.provena.models import ModelRunRecord
from ivcap_flows.registration.registry import KEY_FIELD, SUBJECT_FIELD

__all__ = ["NOUN", "has_own_key", "key_in", "marked", "run_key", "subject_of"]

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
    request = {"subject": subject, "workflow-template": workflow}
    return key_of(platform=platform, account=account, scope="account", noun=NOUN, request=request)


def marked(annotations: Mapping[str, str] | None, key: str, subject: str) -> dict[str, str]:
    """Return a record's annotations with the key, by which the run is found again, and the user's own key."""
    ours = {KEY_FIELD: key}
    if has_own_key(subject):
        ours[SUBJECT_FIELD] = subject
    return {**(annotations or {}), **ours}


def key_in(record: Any) -> str | None:
    """Return the key in a record's JSON, or None."""
    annotations = record.get("annotations") if isinstance(record, dict) else None
    found = annotations.get(KEY_FIELD) if isinstance(annotations, dict) else None
    return found if isinstance(found, str) else None
