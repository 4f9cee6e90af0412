"""Rows of the journal as plain values, independent of the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from ivcap_flows.handles import TERMINAL
from ivcap_flows.journal.states import State

if TYPE_CHECKING:
    from ivcap_flows.provenance.records import Record

__all__ = [
    "COMES_BACK",
    "FORGOTTEN",
    "GIVEN_UP",
    "LEAVES_WITHIN",
    "MISSED_ROUNDS",
    "RESEND",
    "WRITTEN_OFF",
    "AccountRow",
    "AttemptRow",
    "Claim",
    "Cursor",
    "DeliveryRow",
    "DeliveryState",
    "Fact",
    "IntentRow",
    "NewIntent",
    "OpenedAttempt",
    "Outcome",
    "Park",
    "Poll",
    "ProcessRow",
    "RunIdentity",
    "RunRow",
    "SendingRow",
    "Wait",
    "Wanted",
]

LEAVES_WITHIN: Final = 90.0
"""Seconds after it was marked as sent within which a request has left, by the time-outs of both clients: 85 s with
those of Provena."""

WRITTEN_OFF: Final = "written off by the user"
"""The error of an intent that the user has written off."""

FORGOTTEN: Final = "forgotten by the user, since the platform has lost it"
"""The error of an intent whose effect the user had forgotten."""

GIVEN_UP: Final = "given up by the user"
"""The error of a dropped intent that is not requested again until the user decides so."""
RESEND: Final = "to be sent again, by the user's word"
"""The error of a dropped intent that is to be sent again, even if it had an effect."""

MISSED_ROUNDS: Final = 8
"""After so many rounds in a row in which work was on no page of its list, it is dropped from the watchlist: who still
waits for it adds it again, and for what a killed process waited for nobody asks any more."""

Outcome = Literal["running", "completed", "failed", "cancelled", "crashed", "parked", "paused", "lost", "abandoned"]
"""The state of an attempt, or of a run by its newest attempt. `parked`: it left its process and wakes at a set time;
`paused`: Prefect suspended it until somebody resumes it; `lost`: its process is gone and did not say how it ended;
`abandoned`: given up by the user, so that no later run continues it."""

COMES_BACK: Final[tuple[Outcome, ...]] = ("parked", "paused")
"""Outcomes of a run that has no process and continues later."""

DeliveryState = Literal["pending", "delivered", "dead"]
"""`dead`: refused permanently; `reason` says what must change before the next try."""


@dataclass(frozen=True)
class ProcessRow:
    """A process that has, or had, an attempt, a claim or a lease in the journal.

    `id` is its alone; a `host` and a `pid` can be those of another process, too.
    """

    id: str
    host: str
    pid: int
    heartbeat_at: datetime
    lock: str | None = None
    """What identifies the file that it has locked; see `ProcessLocks`."""


@dataclass(frozen=True)
class RunIdentity:
    """The flow, code and parameters of a Prefect flow run, by which the journal finds an earlier run of the same work.

    `entry_point` is the place of the flow's code (`path:function`), and `parameters` are its JSON values for display.
    In a subflow `root_flow_run_id` is the id of the outermost flow run; elsewhere it equals `flow_run_id`. A run that
    is `deployed` is started by Prefect and not by a command, so equal parameters do not make it the same. A background
    task, which a Prefect task worker executes, is deployed without a deployment, and its task run's id stands for that
    of a flow run.
    """

    flow_name: str
    entry_point: str
    parameters: dict[str, Any]
    root_flow_run_id: str
    flow_run_id: str
    deployed: bool = False
    deployment_id: str | None = None
    code: str = ""
    """A name of the code that stays the same when the project is moved; by default `entry_point`."""
    parameters_sha256: str = ""
    """A digest that equal parameters share; by default that of `parameters`."""
    given_sha256: str | None = None
    """The same of the parameters that are not left at their default; None if all were given."""
    flow_run_name: str | None = None

    @property
    def is_subflow(self) -> bool:
        """Whether another flow runs it, whose run it belongs to."""
        return self.flow_run_id != self.root_flow_run_id


@dataclass(frozen=True)
class RunRow:
    """A logical run: one piece of work over all its attempts."""

    id: str
    flow_name: str
    entry_point: str
    """The place of the newest attempt's code (`path:function`), without a function for a script that has no flow."""
    code: str
    """A name of the code that stays the same when the project is moved."""
    parameters: dict[str, Any]
    deployed: bool
    """Whether Prefect starts it, for a deployment or as a background task, and not a command."""
    deployment_id: str | None
    outcome: Outcome
    created_at: datetime
    updated_at: datetime
    missing_facts: int
    """The number of facts that could not be written. If it is not 0, the record of the run is incomplete."""
    journal: str
    """The id of this part's journal. Attempts on another machine may be in another journal."""

    @property
    def is_background(self) -> bool:
        """Whether it is a background task: a task run that a Prefect task worker executes, and that no flow run owns.

        Its id, and the flow run's id of its leading attempts, is the task run's.
        """
        return self.deployed and self.deployment_id is None

    @property
    def way_on(self) -> str:
        """How a user has it continue, as the beginning of a sentence."""
        if self.is_background:
            return "have Prefect deliver its task run again"
        return "retry its flow run in Prefect" if self.deployed else "start the same command again"

    @property
    def flow(self) -> str:
        """The name that scope "flow" uses: the flow's name, or the code of a script or session without a flow."""
        return self.code if self.code.endswith(":") else self.flow_name


@dataclass(frozen=True)
class AccountRow:
    """An account on a platform, each by its id."""

    platform: str
    account: str


@dataclass(frozen=True)
class Wait:
    """An order or job (`noun`) that a run waits for. `service` is the service's URN, `name` what the user calls it, or
    its service's name, and `account` the one that placed it, if the platform reports it."""

    urn: str
    noun: str
    service: str
    name: str | None = None
    account: str | None = None


@dataclass(frozen=True)
class Park:
    """What a run waits for that leaves its process, and when Prefect wakes it. A run's parks count from round 1.

    `platform` and `account` are those by which it asks. `credentials` is the name of a block, or None for the
    environment's credentials. `began_at` is when the run began to wait for these, in the first of its rounds. `enough`
    is how many of them must have ended to wake the run earlier; None for all.
    """

    round: int
    platform: str
    account: str
    credentials: str | None
    waits: tuple[Wait, ...]
    began_at: datetime
    wake_at: datetime
    enough: int | None = None

    @property
    def urns(self) -> frozenset[str]:
        """The URNs of the work that the run waits for."""
        return frozenset(wait.urn for wait in self.waits)


@dataclass(frozen=True)
class AttemptRow:
    """One Prefect flow run (or one try of it) of a logical run.

    `number` counts from 1. A subflow's attempt has the number of the attempt that runs it, and `leads` is False.
    `newest_at_end` is the number of the run's newest attempt when this one ended. `park` is what the run parked for, if
    it left this attempt's process in order to wait, or was about to.
    """

    id: str
    run_id: str
    number: int
    leads: bool
    flow_name: str
    entry_point: str
    """The place of its code (`path:function`)."""
    flow_run_id: str
    flow_run_name: str | None
    root_flow_run_id: str
    outcome: Outcome
    cause: str | None
    started_at: datetime
    ended_at: datetime | None
    newest_at_end: int | None
    park: Park | None
    process: ProcessRow


@dataclass(frozen=True)
class OpenedAttempt:
    """An attempt that has begun, and its run. `joined` is true if the attempt continues a run that an earlier attempt
    began."""

    run: RunRow
    attempt: AttemptRow
    joined: bool


@dataclass(frozen=True)
class NewIntent:
    """An effect that is about to be requested.

    `subject` groups requests that replace each other when a replayed flow diverges, such as the orders of one service.
    `name` is the user's name for the effect. An effect that `spends` counts against the run's limit of orders.
    `definition` is a digest of what the request refers to, such as the service's definition, which may change while its
    name stays. `reuse` says why an earlier effect of an equal request was or was not reused; None if none was looked
    for. `platform_time` is the platform's time, if known: no effect of this intent is older.
    """

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
    """An effect in the journal.

    `fence` is the fencing token: it grows with each claim, and only the newest holder may write.

    `sent_at` is when a request last was about to leave, or its reply was lost. `lingering` says that the request of a
    holder which only seems dead may still leave. `platform_time` is before the first request, by the platform's clock;
    None if the platform did not give its time.

    `how` is "sent", "adopted" or "reused". For an adopted effect, `matched_by` is "key", "content" or "user". `status`
    is the platform's terminal status; `duplicates` are the URNs of further effects under the key. `sent_again` is True
    if it was sent once more after a doubt, so that an earlier request may show an effect later.

    An intent that is open and has a `urn` was done, and the platform has lost that, or so it seems.
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
    lingering: bool = False
    sent_again: bool = False

    @property
    def in_doubt(self) -> bool:
        """Whether it is not known whether a request took effect; `error` says why."""
        return self.state == "sent" and self.error is not None

    @property
    def has_ended(self) -> bool:
        """Whether the platform's work is known to have ended, with `status`."""
        return self.state == "done" and self.status is not None

    @property
    def given_up(self) -> bool:
        """Whether the user has decided that it is not requested again."""
        return self.state == "dropped" and self.error == GIVEN_UP

    @property
    def wanted_anew(self) -> bool:
        """Whether the user has decided that it is requested again, even if the platform shows an effect."""
        return self.state == "dropped" and self.error in (FORGOTTEN, RESEND, WRITTEN_OFF)

    @property
    def standing(self) -> str:
        """What a user is told: the platform's status, or the state."""
        return self.status or ("in doubt" if self.in_doubt else self.state)


@dataclass(frozen=True)
class Claim:
    """The result of a claim.

    `new`: granted, and certainly nothing was sent; `doubt`: granted, but a request may have left; `kept`: the effect
    exists, see the intent's outcome, or the doubt to settle is over; `held`: a live process holds it; `given up`: the
    user has given it up. `resent` is true if an earlier request was dropped, `wanted_anew` if that was the user's
    decision.
    """

    kind: Literal["new", "doubt", "kept", "held", "given up"]
    intent: IntentRow
    resent: bool = False
    wanted_anew: bool = False


@dataclass(frozen=True)
class Fact:
    """A provenance record as a run wrote it. The journal assigns `seq` and `recorded_at`."""

    record: Record
    run_id: str
    attempt_id: str | None = None
    seq: int = 0
    recorded_at: datetime | None = None


@dataclass(frozen=True)
class DeliveryRow:
    """The state of one delivery to one sink. `tries` counts how often an outcome was stored."""

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
    """When a sink last sent a part of a run, by the journal's clock and, if known, by the platform's."""

    sent_at: datetime
    sent_platform_time: datetime | None


@dataclass(frozen=True)
class Cursor:
    """How far a sink has come.

    Every run with facts up to `seq` was delivered to it, or the journal says why not. The exceptions are the runs in
    `behind`, which were still running.
    """

    seq: int = 0
    behind: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """Work that a process waits for: its service, and the status that was last seen on a page of its list.

    `missed` is the number of rounds in a row in which it was on no page.
    """

    service: str
    status: str | None = None
    missed: int = 0


@dataclass(frozen=True)
class Poll:
    """A watchlist: the number of the last round that began and of the last that ended, and the wanted work by URN."""

    begun: int = 0
    ended: int = 0
    wanted: Mapping[str, Wanted] = field(default_factory=dict)

    @property
    def asking(self) -> bool:
        """Whether a process has begun a round that has not ended."""
        return self.begun > self.ended

    def with_new(self, wanted: Mapping[str, str]) -> Poll:
        """Return the watchlist with this work, too (URN to service)."""
        new = {urn: Wanted(service) for urn, service in wanted.items()}
        return Poll(self.begun, self.ended, {**new, **self.wanted})

    def after(self, begun: int, seen: Mapping[str, Wanted]) -> Poll:
        """Return the watchlist after a round. Work whose end an earlier round has stored is dropped.

        A round that another one has overtaken may store what it saw, but it does not end the newer one.
        """
        kept = {urn: seen.get(urn, each) for urn, each in self.wanted.items() if each.status not in TERMINAL}
        wanted = {urn: each for urn, each in kept.items() if each.missed <= MISSED_ROUNDS}
        return Poll(self.begun, max(self.ended, begun), wanted)
