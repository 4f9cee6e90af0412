"""How slow, narrow and late the real platforms are: figures with their sources, and what the embedded make of them.

`ivcap-flows local serve --like production` behaves by these; without it the embedded platforms answer at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ivcap_flows.local.settings import VISIBILITY_DELAY

__all__ = ["AS_BUILT", "FIGURES", "Figure", "Likeness", "Workers", "likeness"]


@dataclass(frozen=True)
class Figure:
    """One figure of the real platforms: seconds, or a number of things where `unit` names them."""

    value: float
    unit: str
    what: str
    source: str


_CODE: Final = "the public source of Provena"
_SEEN: Final = "seen on a real Provena server whose data-store API had two workers"
_ASSUMED: Final = "assumed: nothing is published"

FIGURES: Final[Mapping[str, Figure]] = {
    "ivcap_latency": Figure(0.1, "s", "IVCAP: each request", _ASSUMED),
    "ivcap_start": Figure(
        3.0,
        "s",
        "IVCAP: from the request of a job, or an order, to its start",
        "a published reply of IVCAP, of October 2025; an order of 2023 shows 278 s",
    ),
    "ivcap_retry_later": Figure(
        10, "s", "IVCAP: what the reply to a job says of when to ask again", "a published reply of IVCAP"
    ),
    "provena_latency": Figure(0.2, "s", "Provena: each request", _ASSUMED),
    "provena_gateway": Figure(
        29.0,
        "s",
        "Provena: a gateway gives up on a reply, and the work goes on",
        "the limit of the gateway that Provena's deployment sets up",
    ),
    "provena_at_once": Figure(
        2, "requests", "Provena: worked on at once by each API", f"{_SEEN}; assumed for the others"
    ),
    "provena_mint": Figure(
        2.0, "s", "Provena: a mint keeps its worker", f"{_SEEN}: some 30 together lost replies after 30 s"
    ),
    "provena_lists": Figure(1.0, "s", "Provena: until lists show a new item, which reads do at once", _ASSUMED),
    "provena_row": Figure(1.0, "s", "Provena: until the row of an accepted job shows", _ASSUMED),
    "provena_workers": Figure(3, "workers", "Provena: for each type of job, one job at a time each", _CODE),
    "provena_poll": Figure(5.0, "s", "Provena: a worker looks for the next job", _CODE),
    "provena_cold": Figure(30.0, "s", "Provena: until the first worker of a type has started", _ASSUMED),
    "provena_idle": Figure(120.0, "s", "Provena: a worker without jobs ends", _CODE),
    "provena_work": Figure(2.0, "s", "Provena: a worker is at a job", "seen on a real Provena server: some seconds"),
    "visibility": Figure(
        600.0, "s", "an accepted request surely shows", "what the package counts with on Provena; on IVCAP it is 120 s"
    ),
}
"""How production is, so far as it is known."""


@dataclass(frozen=True)
class Workers:
    """The workers of Provena's jobs. `count` are for each type of job; the rest are seconds: until one looks for the
    next job, until the first has started, until one without jobs ends, for which one is at a job, and until the row of
    an accepted job shows."""

    count: int
    poll: float
    cold: float
    idle: float
    work: float
    row: float


@dataclass(frozen=True)
class Likeness:
    """How the embedded platforms behave: by fault rules that always apply, by Provena's workers (None: each job goes on
    at once), and by the seconds until a job of IVCAP starts, after which to ask for it again, and within which an
    accepted request surely shows."""

    name: str | None = None
    speed: float = 1.0
    rules: tuple[Mapping[str, Any], ...] = ()
    workers: Workers | None = None
    start: float = 0.0
    retry_later: int = 1
    visibility_delay: float = VISIBILITY_DELAY


AS_BUILT: Final = Likeness()
"""As quick as the machine is."""


def likeness(name: str, speed: float = 1.0) -> Likeness:
    """How the platforms of this name behave, `speed` times as quick. Raises ValueError for a name that is unknown."""
    if name != "production":
        raise ValueError(f"The embedded platforms can be like production, and not like {name}.")
    if not speed > 0:
        raise ValueError(f"The speed is a number above 0, and not {speed:g}.")

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
