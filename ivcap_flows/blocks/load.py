"""Load saved blocks: once in each run of a flow."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from prefect.blocks.core import Block
from pydantic import ValidationError

from ivcap_flows.blocks.prefect_lock import prefect_unreachable
from ivcap_flows.capture.prefect_context import flow_context
from ivcap_flows.errors import ConfigurationError
from ivcap_flows.forked import PerProcess
from ivcap_flows.loop import asked_once
from ivcap_flows.lru_cache import LruCache

__all__ = ["load_block"]

B = TypeVar("B", bound=Block)

_LOGINS: Final = {
    "IvcapCredentials": "`ivcap-flows login URL --block {name}` or ",
    "ProvenaCredentials": "`ivcap-flows login --provena {name}` or ",
}
"""The command that stores a login in a new block."""
_MOST: Final = 100
_loaded: PerProcess[LruCache[tuple[str, int, type, str], Any]] = PerProcess(lambda: LruCache(_MOST))
"""The blocks that runs have loaded, by flow run and its attempt, so that a retry sees a block that was corrected."""


async def load_block(cls: type[B], name: str) -> B:
    """Return the saved block of this name. A run of a flow loads it once; without a flow, it is always loaded.

    Raises ConfigurationError if there is none, or if it cannot be used, and UnreachableError without Prefect's API.
    """
    context = flow_context()
    if context is None or context.flow_run is None:
        return await _load(cls, name)
    key = (str(context.flow_run.id), context.flow_run.run_count, cls, name)
    found: B | None = _loaded().get(key)
    if found is None:
        found = await asked_once(key, lambda: _load(cls, name))
        _loaded().put(key, found)
    return found


async def _load(cls: type[B], name: str) -> B:
    try:
        return await cls.aload(name)
    except RuntimeError as error:
        # This is how Prefect reports a stored block that fails the validation of its class.
        if not isinstance(error.__cause__, ValidationError):
            raise prefect_unreachable(error) from None
        wrong = "; ".join(fault["msg"] for fault in error.__cause__.errors())
        raise ConfigurationError(f"The block {cls.__name__} named {name!r} cannot be used. {wrong}") from None
    except ValueError as error:
        raise ConfigurationError(
            f"There is no block {cls.__name__} named {name!r}. Save one by "
            f"{_LOGINS.get(cls.__name__, '').format(name=name)}`{cls.__name__}(...).save({name!r})`."
        ) from error
    except Exception as error:  # noqa: BLE001 - Prefect's errors have no common base
        raise prefect_unreachable(error) from None
