"""What the journal takes and gives: plain values, free of the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from ivcap_flows.journal.states import State

if TYPE_CHECKING:
    from ivcap_flows.provenance.records import Record

__all__ = [
    "GIVEN_UP",
    "LEAVES_WITHIN",
    "RESEND",
    "WRITTEN_OFF",
    "AttemptRow",
    "Claim",
    "Cursor",
    "DeliveryRow",
    "DeliveryState",
    "Fact",
    "IntentRow",
    "Lead",
    "NewIntent",
    "OpenedAttempt",
    "Outcome",
    "ParkRow",
    "ParkState",
    "ProcessRow",
    "RunIdentity",
    "RunRow",
    "SendingRow",
    "Settled",
    "Stated",
    "Wait",
    "Watch",
]

LEAVES_WITHIN: Final = 90.0
"""So many seconds after it was marked as sent a request can still leave, by the time-outs of both clients: 85 s with
those of Provena."""

WRITTEN_OFF: Final = "written off by the user"
"""The error of what the user has given up."""

GIVEN_UP: Final = "given up by the user"
"""Why an intent is abandoned that is not asked for again until the user says so."""
RESEND: Final = "to be sent again, by the user's word"
"""Why an intent is abandoned that is sent again, whatever there is of it."""

Outcome = Literal["running", "completed", "failed", "cancelled", "crashed", "parked", "lost", "abandoned"]
"""How an attempt, and with its newest attempt a run, stands. `lost`: its process is gone and left no word;
`abandoned`: given up by the user, so that no later run continues it."""

DeliveryState = Literal["pending", "delivered", "dead"]
"""`dead`: refused for good; `reason` says what has to change before it is tried again."""

ParkState = Literal["parked", "woken", "over"]
"""`woken`: the run was told to go on, or goes on; `over`: it will not, `why` says for what reason."""


@dataclass(frozen=True)
class ProcessRow:
    """A process that opened the journal. `started` tells two processes with one pid apart; it is no clock time."""

    id: str
    host: str
    boot: str
    pid: int
    started: float
    heartbeat_at: datetime


@dataclass(frozen=True)
class RunIdentity:
    """What a Prefect flow run is asked to do, by which the journal knows an earlier run of the same.

    `entry_point` is where the flow's code lies (`path:function`), `parameters` are its JSON values as they are shown.
    In a subflow `root_flow_run_id` is the outermost flow run's id; elsewhere it equals `flow_run_id`.
    """

    flow_name: str
    entry_point: str
    parameters: dict[str, Any]
    root_flow_run_id: str
    flow_run_id: str
    deployed: bool = False
    deployment_id: str | None = None
    code: str = ""
    """The code by a name that a move leaves as it is, by default `entry_point`."""
    parameters_sha256: str = ""
    """What equal parameters share, by default of those that are shown."""


@dataclass(frozen=True)
class RunRow:
    """A logical run: what one piece of work is called over all its attempts."""

    id: str
    flow_name: str
    entry_point: str
    """Where the code of the newest attempt lies (`path:function`); without a function for a script without a flow."""
    code: str
    """The code by a name that a move leaves as it is."""
    parameters: dict[str, Any]
    deployed: bool
    deployment_id: str | None
    outcome: Outcome
    created_at: datetime
    updated_at: datetime
    missing_facts: int
    """How many facts could not be written; with any, the record of the run is incomplete."""
    journal: str
    """The id of the journal that holds this part of the run; another may hold the attempts of another machine."""

    @property
    def flow(self) -> str:
        """What scope "flow" is within: the flow, by its name; the code of a script or session that has none."""
        return self.code if self.code.endswith(":") else self.flow_name


@dataclass(frozen=True)
class AttemptRow:
    """One Prefect flow run (or one try of it) of a logical run.

    `number` counts from 1; a subflow's attempt has the number of the attempt that leads it and `leads` False.
    `newest_at_end` is the number of the run's newest attempt when this one ended.
    """

    id: str
    run_id: str
    number: int
    leads: bool
    flow_name: str
    entry_point: str
    """Where its code lay (`path:function`)."""
    flow_run_id: str
    root_flow_run_id: str
    outcome: Outcome
    cause: str | None
    started_at: datetime
    ended_at: datetime | None
    newest_at_end: int | None
    process: ProcessRow


@dataclass(frozen=True)
class OpenedAttempt:
    """`joined` is true where the attempt continues a run that an earlier attempt began and left."""

    run: RunRow
    attempt: AttemptRow
    joined: bool


@dataclass(frozen=True)
class NewIntent:
    """An effect about to be asked for. `subject` groups requests that replace each other when a replayed flow
    diverges, such as the orders of one service; `name` is what the user calls it; `spends` counts against the run's
    limit of orders. `definition` is a digest of what is asked, such as the service's definition, which may change while
    its name stays; `reuse` says what an earlier effect of an equal request was found to be good for, None where none
    was looked for. `platform_time` is the platform's own time, as far as it is known: no effect of this intent is
    older."""

    key: str
    base_key: str
    noun: str
    platform: str
    account: str
    scope: str
    request: Any
    generation: int = 0
    discriminator: str | None = None
    subject: str | None = None
    name: str | None = None
    spends: bool = False
    run_id: str | None = None
    attempt_id: str | None = None
    attempt_number: int = 0
    definition: str | None = None
    reuse: str | None = None
    platform_time: datetime | None = None


@dataclass(frozen=True)
class IntentRow:
    """An effect in the journal. `fence` grows with each claim; only the newest holder may write.

    `serial` grows with each new intent and never falls. `sent_at` is the last moment at which a request may have left,
    of one that is `sent` the moment when the claim was last confirmed; then it may leave until `may_send_until`.
    `sent_platform_time` is no earlier than `sent_at` by the platform's own clock, and `platform_time` is before the
    first such moment. Both are None where it told none. `how` is "sent", "adopted" or "reused"; of what was adopted
    `matched_by` says "key", "content" or "user". `status` is the platform's terminal status; `duplicates` are the URNs
    of further effects under the key.
    """

    key: str
    base_key: str
    generation: int
    noun: str
    platform: str
    account: str
    scope: str
    request: Any
    discriminator: str | None
    subject: str | None
    name: str | None
    spends: bool
    run_id: str | None
    attempt_id: str | None
    asked_attempt: int
    state: State
    fence: int
    serial: int
    process_id: str | None
    token: str | None
    created_at: datetime
    updated_at: datetime
    sent_at: datetime | None
    progress: Any
    urn: str | None
    outcome: Any
    how: str | None
    matched_by: str | None
    status: str | None
    error: str | None
    duplicates: list[str]
    definition: str | None = None
    reuse: str | None = None
    platform_time: datetime | None = None
    sent_platform_time: datetime | None = None
    may_send_until: datetime | None = None


@dataclass(frozen=True)
class Stated:
    """An intent of a journal as its idempotency record on a platform states it."""

    key: str
    serial: int
    created_at: datetime


@dataclass(frozen=True)
class Claim:
    """The answer to a claim.

    `new`: ours, and surely nothing was sent; `doubt`: ours, but a request may have left; `kept`: done before, see
    the intent's outcome; `held`: a live process is at it. `again`: asked for before in this very attempt.
    """

    kind: Literal["new", "doubt", "kept", "held"]
    intent: IntentRow
    again: bool = False


@dataclass(frozen=True)
class Fact:
    """A provenance record as a run stated it. `seq` and `recorded_at` are given by the journal."""

    record: Record
    run_id: str
    attempt_id: str | None = None
    seq: int = 0
    recorded_at: datetime | None = None


@dataclass(frozen=True)
class DeliveryRow:
    """How far one delivery to one sink has come; `tries` counts the times it was recorded."""

    sink: str
    key: str
    run_id: str | None
    state: DeliveryState
    reason: str | None
    tries: int
    next_try: datetime | None = None
    updated_at: datetime | None = field(default=None)


@dataclass(frozen=True)
class SendingRow:
    """When a sink last sent something of a run, by the journal's clock and, where it told one, by the platform's."""

    sent_at: datetime
    sent_platform_time: datetime | None
    may_send_until: None = None


@dataclass(frozen=True)
class Cursor:
    """How far a sink has come: it has been told, or it is noted why not, of every run with facts up to `seq`, but for
    the runs that were still running then, which are `behind`."""

    seq: int = 0
    behind: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settled:
    """The effect of an intent. `how` is "sent", "adopted" or "reused", `outcome` its JSON form."""

    intent: IntentRow
    urn: str | None
    outcome: Any
    how: str
    matched_by: str | None = None
    duplicates: Sequence[str] = ()


@dataclass(frozen=True)
class Wait:
    """An order or job (`noun`) that a run waits for. `service` is the service's URN."""

    urn: str
    noun: str
    service: str


@dataclass(frozen=True)
class ParkRow:
    """One round of parking of a logical run; rounds count from 1.

    `process` is the one that the run left, `credentials` the name of a block, None for what the environment means.
    `began_at` is when the run first waited for these, over all its rounds.
    """

    run_id: str
    round: int
    attempt_id: str
    flow_run_id: str
    process: ProcessRow
    platform: str
    credentials: str | None
    waits: tuple[Wait, ...]
    state: ParkState
    why: str | None
    began_at: datetime
    parked_at: datetime
    wake_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True)
class Lead:
    """Who leads a watchlist, as one process noted it. `since`: its monotonic time since when nothing was renewed."""

    mine: bool
    token: str
    renewal: int
    since: float


@dataclass(frozen=True)
class Watch:
    """Work of a service that others wait for. `status`: what all of them were told; None where one was told nothing
    yet, or something else."""

    service: str
    status: str | None
