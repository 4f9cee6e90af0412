"""Tasks for the account's secrets. A secret's value is never in a log, record, journal or stored result."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from pydantic import SecretStr

from ivcap_flows.errors import InputError
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.planned import only_planned

__all__ = ["aget_secret", "alist_secrets", "aset_secret", "get_secret", "list_secrets", "set_secret"]


async def _list_secrets(
    *,
    filter: str | None = None,  # noqa: A002 - the API's word
    credentials: IvcapCredentialsLike = None,
) -> dict[str, datetime | None]:
    """Return the names of the account's secrets, each with the time when it expires (None: never). No values.

    `filter` is a pattern for names in the platform's grammar.
    """
    call = await IvcapCall.of(credentials)
    return {each.secret_name: each.expires_at async for each in call.client.secrets.list(filter=filter)}


async def _get_secret(name: str, *, credentials: IvcapCredentialsLike = None) -> SecretStr:
    """Return a secret of the account; `.get_secret_value()` gives its value. Prefect does not store the result.

    Inside an IVCAP container, an environment variable of that name is used first, then the container's secret manager.
    Raises NotFoundError if the account has no such secret. Do not return the secret from a flow with persisted results.
    """
    call = await IvcapCall.of(credentials)
    record = await call.client.secrets.get(name)
    assert record.secret_value is not None
    return record.secret_value


async def _set_secret(
    name: str,
    secret: SecretStr,
    *,
    expires: datetime | timedelta | None = None,
    credentials: IvcapCredentialsLike = None,
) -> None:
    """Create a secret of the account, or replace the one of that name. Idempotent.

    `secret` must be a SecretStr, since a plain text could appear in logs and records; otherwise InputError is raised.
    `expires` is the time when it expires, or the duration until then, in the future; None means never.
    """
    if not isinstance(secret, SecretStr):
        raise InputError(
            f"The secret {name!r} must be a SecretStr, not {type(secret).__name__}. Wrap it: SecretStr(…)."
        )
    call = await IvcapCall.of(credentials)
    if not only_planned("secret", name):
        moment = datetime.now(timezone.utc) + expires if isinstance(expires, timedelta) else expires
        await call.client.secrets.set(name, secret, expires_at=moment)


list_secrets, alist_secrets = task_pair(_list_secrets)
get_secret, aget_secret = task_pair(_get_secret, "get secret {name}", persist=False)
set_secret, aset_secret = task_pair(_set_secret, "set secret {name}", persist=False)
