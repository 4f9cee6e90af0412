"""Hold a reply against what its request asked, for every noun of both platforms.

An intermediary may send a reply twice, or pass on that of another request. Without this check, a handle would name
another thing than the one that was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from ivcap_flows.http.reply import Reply
from ivcap_flows.identity import KEY_FIELD, KEY_TAG, key_in, urn_id

__all__ = ["misfit"]

_NOUNS: Final = {
    "artifacts": "artifact",
    "aspects": "aspect",
    "jobs": "job",
    "orders": "order",
    "project": "project",
    "queues": "queue",
    "services2": "service",
}
"""A part of IVCAP's paths -> the type of the URNs there."""

_NAMED_ELSEWHERE: Final = {"handle_id": "id"}
_WITHIN: Final = ("item", "job", "group")
"""Fields of Provena's replies that hold the thing that was asked for by its id."""


def misfit(reply: Reply, params: Mapping[str, Any], sent: Any) -> str | None:
    """Return what shows that the reply answers another request; None if nothing does.

    `params` are the parameters in the request's URL, `sent` is its JSON. A reply that is not JSON is not judged.
    """
    body = reply.json() if reply.is_json and reply.has_json else None
    if not isinstance(body, dict):
        body = {}
    found = _of_ivcap(reply, params, body) if reply.path.startswith("/1/") else _of_provena(params, sent, body)
    asked, there = _keys(sent), _keys(body)
    if "name" in asked and isinstance(name := body.get("name"), str) and sent["name"].startswith(name):
        there.pop("name", None)  # the platform has cut it, perhaps before the key
    if found is None and any(keys and not keys & there.get(field, keys) for field, keys in asked.items()):
        return "does not have the key of the request"
    return found


def _of_ivcap(reply: Reply, params: Mapping[str, Any], body: dict[str, Any]) -> str | None:
    *_, before, last = ["", *reply.path.strip("/").split("/")]
    named = body.get("id") or body.get("job-id") or reply.headers.get("ivcap-job-id")
    if before in _NOUNS and last != "default":
        asked = unquote(last)
        return None if not isinstance(named, str) or urn_id(named) == urn_id(asked) else f"is of {named}"
    if last not in _NOUNS:
        return None
    if reply.method == "GET" and named is not None:
        return f"is of {named} and no list"
    items = body.get("items")
    things = [one for one in items if isinstance(one, dict)] if isinstance(items, list) else [{"id": named}]
    for thing in things:
        kind, _, of = str(thing.get("id")).removeprefix("urn:ivcap:").partition(":")
        if of and kind != "urn" and kind != _NOUNS[last]:
            return f"has the {kind} {thing['id']} in place of a URN of type {_NOUNS[last]}"
        entity = thing.get("entity")
        if isinstance(entity, str) and entity != (params.get("entity") or entity):
            return f"is about {entity}"
    return None


def _of_provena(params: Mapping[str, Any], sent: Any, body: dict[str, Any]) -> str | None:
    asked = {**params, **(sent if isinstance(sent, dict) else {})}
    things = [body, *(body[name] for name in _WITHIN if isinstance(body.get(name), dict))]
    for name, value in asked.items():
        if isinstance(value, str) and (name == "id" or name.endswith("_id")):
            for thing in things:
                said = thing.get(_NAMED_ELSEWHERE.get(name, name))
                if isinstance(said, str) and said != value:
                    return f"is of {said}"
    return None


def _keys(body: Any) -> dict[str, set[str]]:
    """Return the idempotency keys, or their short forms, in each field of a request or a reply that may carry some."""
    if not isinstance(body, dict):
        return {}
    found = _keys(body.get("created_item"))
    name, tags, metadata = body.get("name"), body.get("tags"), body.get("user_metadata")
    if isinstance(name, str):
        found["name"] = {short for short in [key_in(name)] if short}
    if isinstance(tags, list):
        marked = (tag for tag in tags if isinstance(tag, str) and tag.startswith(KEY_TAG))
        found["tags"] = {tag.removeprefix(KEY_TAG) for tag in marked}
    if isinstance(metadata, dict):
        found["user_metadata"] = {key for key in [metadata.get(KEY_FIELD)] if isinstance(key, str)}
    return found
