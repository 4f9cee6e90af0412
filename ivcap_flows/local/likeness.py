"""Latencies, limits and delays of the real platforms, with their sources, and how the embedded ones imitate them.

`ivcap-flows local serve --like production` uses them; without it the embedded platforms reply at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ivcap_flows.local.settings import VISIBILITY_DELAY

__all__ = ["AS_BUILT", "FIGURES", "Figure", "Likeness", "Workers", "likeness"]


@dataclass(frozen=True)
class Figure:
    """One figure of the real platforms: seconds, or a number of the things in `unit`."""

    value: float
    unit: str
    what: str
    source: str


_CODE: Final = "the public source of Provena"
_SEEN: Final = "seen on a real Provena server whose data-store API had two workers"
_ASSUMED: Final = "assumed, since nothing is published"

FIGURES: Final[Mapping[str, Figure]] = {
    "ivcap_latency": Figure(0.1, "s", "IVCAP: delay of each request", _ASSUMED),
    "ivcap_start": Figure(
        3.0,
        "s",
        "IVCAP: delay from the request of a job or an order to its start",
        "a published reply of IVCAP, of October 2025; an order of 2023 shows 278 s",
    ),
    "ivcap_retry_later": Figure(
        10, "s", "IVCAP: time until the next poll, as the reply to a job says", "a published reply of IVCAP"
    ),
    "provena_latency": Figure(0.2, "s", "Provena: delay of each request", _ASSUMED),
    "provena_gateway": Figure(
        29.0,
        "s",
        "Provena: timeout of the gateway for a reply, while the work continues",
        "the limit of the gateway that Provena's deployment sets up",
    ),
    "provena_at_once": Figure(
        2, "requests", "Provena: requests that each API processes at the same time", f"{_SEEN}; assumed for the others"
    ),
    "provena_mint": Figure(
        2.0,
        "s",
        "Provena: time for which a mint occupies its worker",
        f"{_SEEN}: about 30 mints at the same time lost replies after 30 s",
    ),
    "provena_lists": Figure(
        1.0, "s", "Provena: delay until lists show a new item; reads show it immediately", _ASSUMED
    ),
    "provena_row": Figure(1.0, "s", "Provena: delay until the row of an accepted job is visible", _ASSUMED),
    "provena_workers": Figure(3, "workers", "Provena: workers for each type of job, with one job at a time", _CODE),
    "provena_poll": Figure(5.0, "s", "Provena: interval at which a worker looks for the next job", _CODE),
    "provena_cold": Figure(30.0, "s", "Provena: delay until the first worker of a type has started", _ASSUMED),
    "provena_idle": Figure(120.0, "s", "Provena: time without jobs after which a worker ends", _CODE),
    "provena_work": Figure(
        2.0, "s", "Provena: time that a worker needs for a job", "seen on a real Provena server: a few seconds"
    ),
    "visibility": Figure(
        600.0,
        "s",
        "visibility delay: the longest time until an accepted request is seen",
        "what the package assumes for Provena; for IVCAP it assumes 120 s",
    ),
}
"""The known and assumed figures of production."""


@dataclass(frozen=True)
class Workers:
    """The workers of Provena's jobs.

    `count` is for each type of job. The rest are seconds: `poll` until a worker looks for the next job, `cold` until
    the first worker has started, `idle` until a worker without jobs ends, `work` that a worker spends on a job, and
    `row` until the row of an accepted job is visible.
    """

    count: int
    poll: float
    cold: float
    idle: float
    work: float
    row: float


@dataclass(frozen=True)
class Likeness:
    """The behaviour of the embedded platforms.

    `rules` are fault rules that always apply. `workers` are Provena's (None: each job starts at once). In seconds:
    `start` until a job of IVCAP starts, `retry_later` until a client should ask for it again, and `visibility_delay`
    within which an accepted request is surely visible.
    """

    name: str | None = None
    speed: float = 1.0
    rules: tuple[Mapping[str, Any], ...] = ()
    workers: Workers | None = None
    start: float = 0.0
    retry_later: int = 1
    visibility_delay: float = VISIBILITY_DELAY


AS_BUILT: Final = Likeness()
"""As fast as the machine allows."""


def likeness(name: str, speed: float = 1.0) -> Likeness:
    """Return the behaviour of the platforms of this name, `speed` times as fast. Raises ValueError."""
    if name != "production":
        raise ValueError(f"The embedded platforms can be like production only, not like {name}.")
    if not speed > 0:
        raise ValueError(f"The speed must be a number above 0, not {speed:g}.")

    def seconds(figure: str) -> float:
        return FIGURES[figure].value / speed

    narrow = {"at_once": int(FIGURES["provena_at_once"].value), "lost_after": seconds("provena_gateway")}
    apis = ("auth", "registry", "prov", "jobs", "data", "search", "handle")
    return Likeness(
        name=name,
        speed=speed,
        rules=(
            *({"path": f"^/provena/{api}/", **narrow} for api in apis),
            {"method": "POST", "path": "/mint-dataset$", "delay": seconds("provena_mint")},
            {"path": "^/provena/", "delay": seconds("provena_latency"), "late_in_lists": seconds("provena_lists")},
            {"path": "^/1/", "delay": seconds("ivcap_latency")},
        ),
        workers=Workers(
            count=int(FIGURES["provena_workers"].value),
            poll=seconds("provena_poll"),
            cold=seconds("provena_cold"),
            idle=seconds("provena_idle"),
            work=seconds("provena_work"),
            row=seconds("provena_row"),
        ),
        start=seconds("ivcap_start"),
        retry_later=max(1, round(seconds("ivcap_retry_later"))),
        visibility_delay=seconds("visibility"),
    )
