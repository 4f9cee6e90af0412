"""The Prefect tasks. Each exists twice: `place_order` for synchronous flows, `aplace_order` for asynchronous ones.

`run_orders` is a function that calls several of them in the flow's body.
`ivcap` and `provena` have the tasks of each platform, listed in their stub files; `fetch_url` needs neither. A task's
module is imported when the task is first used.
"""

from typing import Any

from ivcap_flows.tasks import ivcap, provena

_WEB = ("afetch_url", "fetch_url")

__all__ = sorted({*ivcap.__all__, *provena.__all__, *_WEB})


def __getattr__(name: str) -> Any:
    if name in _WEB:
        from ivcap_flows.tasks import fetch

        return getattr(fetch, name)
    for platform in (ivcap, provena):
        if name in platform.__all__:
            return getattr(platform, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
