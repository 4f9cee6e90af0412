"""Submissions under a global concurrency limit of a real Prefect server."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from broken_program import on_build
from eventually import auntil, until
from other_processes import end_at_once, settings_of_platforms
from prefect.client.orchestration import PrefectClient
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect_servers import OwnPrefect

from ivcap_flows import loop
from ivcap_flows.errors import ConfigurationError
from ivcap_flows.journal import Journal
from ivcap_flows.provena.models import Associations, ModelRunRecord, TemplatedDataset
from ivcap_flows.provena.prov import ProvApi
from ivcap_flows.registration.job_watch import JobWatch
from ivcap_flows.tasks import (
    mint_dataset,
    place_order,
    register_model_run,
    register_model_runs,
    request_job,
    submission_limit,
)
from ivcap_flows.tasks.provena import linked_person
from ivcap_flows.tasks.submission_limit import SubmissionLimit

SUBMISSIONS = ("/1/orders", "/1/services")
"""Where orders are placed, and where the paths begin under which jobs are requested."""


class Slots:
    """A global concurrency limit of one slot."""

    def __init__(self, api: str, name: str) -> None:
        self.name = name
        self._limits = f"{api}/v2/concurrency_limits/"

    def create(self) -> None:
        httpx.post(self._limits, json={"name": self.name, "limit": 1}, timeout=60).raise_for_status()

    def update(self, **changes: Any) -> None:
        httpx.patch(f"{self._limits}{self.name}", json=changes, timeout=60).raise_for_status()

    def take(self) -> None:
        body = {"names": [self.name], "slots": 1, "mode": "concurrency"}
        httpx.post(f"{self._limits}increment", json=body, timeout=60).raise_for_status()

    @property
    def taken(self) -> int:
        reply = httpx.get(f"{self._limits}{self.name}", timeout=60).raise_for_status()
        return int(reply.json()["active_slots"])


@pytest.fixture
def slots(prefect_server: dict[str, str], unique: str, monkeypatch: pytest.MonkeyPatch) -> Slots:
    """A limit that the settings name, and that Prefect does not have yet."""
    # Prefect would take a name of 32 hexadecimal digits for an id.
    name = f"limit-{unique}"
    monkeypatch.setenv("IVCAP_FLOWS_CONCURRENCY_LIMIT", name)
    return Slots(prefect_server["PREFECT_API_URL"], name)


@pytest.fixture
def submitting(
    prefect_server: dict[str, str], embedded_platform: Any, tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Return `submitting(word, count)`, which starts a process that submits as many orders and jobs at once.

    Each process has a journal of its own. With `build`, it runs on that broken build.
    """
    program = str(Path(__file__).with_name("limited_flow.py"))
    started: list[subprocess.Popen[bytes]] = []

    def start(word: str, count: int, build: str | None = None) -> subprocess.Popen[bytes]:
        ours = {**settings_of_platforms(), "IVCAP_FLOWS_JOURNAL": f"sqlite:///{tmp_path / word}.sqlite"}
        with open(tmp_path / f"{word}.log", "wb") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, *on_build(build), program, word, str(count)],
                    env={**prefect_server, **ours},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
        return started[-1]

    yield start
    for process in started:
        end_at_once(process)


def submitted(embedded: Any) -> list[dict[str, Any]]:
    """Return the requests for orders and jobs. One that is under way has no status."""
    return [each for each in embedded.requests("POST") if each["path"].startswith(SUBMISSIONS)]


def under_way(embedded: Any) -> int:
    return sum(each["status"] is None for each in submitted(embedded))


def test_submissions_take_turns(slots, in_flow, embedded_platform, unique):
    """With one slot, no two submissions are under way together."""
    slots.create()
    embedded_platform.add_fault(method="POST", path="^/1/(orders|services/.*/jobs)", delay=0.8)

    def body() -> int:
        message = {"message": unique}
        asked = [place_order.submit("echo", message), request_job.submit("echo", message)]
        most = 0
        while not all(each.state.is_final() for each in asked):
            most = max(most, under_way(embedded_platform))
            time.sleep(0.05)
        return most

    assert in_flow(body) == 1
    assert len(submitted(embedded_platform)) == 2 and slots.taken == 0


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_process_that_waits_for_a_slot_has_sent_nothing(slots, submitting, embedded_platform, unique, tmp_path):
    """Its log says what it waits for. Killed, it leaves intents that are not in doubt."""
    slots.create()
    slots.take()
    waiting, log = submitting(unique, 1), tmp_path / f"{unique}.log"
    until(lambda: f"Waiting for a slot of Prefect's concurrency limit {slots.name!r}" in log.read_text())
    end_at_once(waiting)
    with Journal.open(f"sqlite:///{tmp_path / unique}.sqlite") as journal:
        assert [intent.state for intent in journal.intents.where()] == ["claimed", "claimed"]
    assert submitted(embedded_platform) == []


APART = "each process has its limit"


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("build", "killed"), [(None, False), (None, True), pytest.param(APART, False, marks=pytest.mark.mutant(APART))]
)
def test_two_processes_keep_one_limit(slots, submitting, embedded_platform, unique, tmp_path, build, killed):
    """Two processes wait for the only slot, and never is more than one request of both under way; not even if the one
    that has the slot is killed, whose request goes on without it. A build in which each process keeps the limit alone
    is found."""
    slots.create()
    slots.take()
    # With `at_once`, a request goes on though its caller is gone.
    rule = {"method": "POST", "path": "^/1/(orders|services/.*/jobs)", "at_once": 2}
    embedded_platform.add_fault(**rule, delay=10.0 if killed else 0.8)
    journals = {f"{unique}-{name}": tmp_path / f"{unique}-{name}.sqlite" for name in ("one", "two")}
    processes = {word: submitting(word, 1, build) for word in journals}

    def states(word: str) -> list[str]:
        with Journal.open(f"sqlite:///{journals[word]}") as journal:
            return [intent.state for intent in journal.intents.where()]

    until(lambda: all(path.exists() and len(states(word)) == 2 for word, path in journals.items()))
    if build is not None:
        until(lambda: submitted(embedded_platform), seconds=20)
        return
    assert submitted(embedded_platform) == []
    slots.update(active_slots=0)
    most, to_kill = 0, killed
    while any(process.poll() is None for process in processes.values()):
        most = max(most, under_way(embedded_platform))
        if to_kill and most:
            to_kill = False
            [holder] = [word for word in processes if "sent" in states(word)]
            processes[holder].kill()
        time.sleep(0.05)
    ends = sorted(process.returncode for process in processes.values())
    assert most == 1 and ends == [-signal.SIGKILL if killed else 0, 0]


@pytest.mark.parametrize("free", ["as the command does", pytest.param("by the command", marks=pytest.mark.long)])
def test_a_slot_that_is_lost_is_named_with_the_command_that_frees_it(slots, prefect_server, monkeypatch, caplog, free):
    """As after a restart of Prefect's server. The command of the warning lets the submission go on."""
    monkeypatch.setattr(submission_limit, "LOST_AFTER", 0.5)
    slots.create()
    slots.update(active_slots=1)

    async def submit():
        entered = asyncio.create_task(SubmissionLimit(slots.name).turn().__aenter__())
        await auntil(lambda: "`prefect " in caplog.text)
        found = re.search("`prefect (.*)`", caplog.text)
        assert found[1] == f"gcl update {slots.name} --active-slots 0"
        if free == "by the command":
            command = [sys.executable, "-m", "prefect", *found[1].split()]
            await asyncio.to_thread(subprocess.run, command, env=prefect_server, check=True, capture_output=True)
        else:
            await asyncio.to_thread(slots.update, active_slots=0)
        await asyncio.wait_for(entered, 60)

    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]}):
        loop.run(submit())
    assert slots.name in caplog.text and "never free again" in caplog.text


@pytest.mark.long
@pytest.mark.timeout(400)
def test_the_slot_of_a_killed_process_is_free_again(slots, submitting, embedded_platform, unique, tmp_path):
    """Its lease ends after a minute. Then others go on, and what it had sent is adopted by the next attempt."""
    slots.create()
    # With `at_once`, a request takes effect though its caller is gone.
    embedded_platform.add_fault(method="POST", path="^/1/orders$", delay=2.0, at_once=1)
    killed = submitting(f"{unique}-same", 1)
    until(lambda: slots.taken == 1 and submitted(embedded_platform))
    killed.send_signal(signal.SIGKILL)
    killed.wait(10)
    assert slots.taken == 1
    again = submitting(f"{unique}-same", 1)
    assert again.wait(300) == 0, (tmp_path / f"{unique}-same.log").read_text()
    paths = [each["path"] for each in submitted(embedded_platform)]
    assert len(paths) == 2 and paths.count("/1/orders") == 1


def test_a_slot_is_held_until_provena_has_accepted(
    slots, in_script, effects, ended_order, artifact, registry, unique, monkeypatch
):
    """A registration, of a batch too, has one while its request is under way, and waits for its end without."""
    taken: dict[str, list[int]] = {}

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        async def watched(*given: Any, **named: Any) -> Any:
            taken.setdefault(name, []).append(await asyncio.to_thread(lambda: slots.taken))
            return await original(*given, **named)

        monkeypatch.setattr(owner, name, watched)

    def body() -> None:
        data = {registry.template: mint_dataset(artifact, terms=registry.terms)}
        register_model_run(ended_order, workflow_template=registry.workflow, inputs=data, outputs=data)
        [dataset] = data.values()
        part = TemplatedDataset(dataset_template_id=registry.template, dataset_id=dataset.urn)
        record = ModelRunRecord(
            workflow_template_id=registry.workflow,
            inputs=[part],
            outputs=[part],
            display_name=unique,
            description="A run",
            associations=Associations(modeller_id=linked_person().urn),
            start_time=100,
            end_time=200,
        )
        register_model_runs([record])

    slots.create()
    for owner, name in ((ProvApi, "register"), (JobWatch, "wait")):
        watch(owner, name)
    in_script(body)
    assert taken == {"register": [1, 1], "wait": [0, 0]} and slots.taken == 0


@pytest.fixture
def forget(
    prefect_server: dict[str, str], slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], None]]:
    """Return `forget()`, after which Prefect counts a slot as taken and knows no lease of it, as after a restart."""
    leases: list[str] = []
    take = PrefectClient.increment_concurrency_slots_with_lease

    async def noted(*given: Any, **named: Any) -> Any:
        reply = await take(*given, **named)
        leases.append(reply.json()["lease_id"])
        return reply

    def lose() -> None:
        body = {"lease_id": leases[-1]}
        httpx.post(f"{slots._limits}decrement-with-lease", json=body, timeout=60).raise_for_status()
        slots.update(active_slots=1)

    monkeypatch.setattr(PrefectClient, "increment_concurrency_slots_with_lease", noted)
    slots.create()
    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"], PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield lose


def away(monkeypatch: pytest.MonkeyPatch, name: str, times: int, status: int = 0) -> None:
    """Let so many requests of Prefect's client meet a server that is not there, or that answers with an error."""
    left, whole = [times], getattr(PrefectClient, name)

    async def maybe(*given: Any, **named: Any) -> Any:
        if left[0]:
            left[0] -= 1
            if status:
                httpx.Response(status, request=httpx.Request("POST", "http://prefect.test/api")).raise_for_status()
            raise httpx.ConnectError("refused")
        return await whole(*given, **named)

    monkeypatch.setattr(PrefectClient, name, maybe)


@pytest.mark.parametrize(
    "case",
    [
        *("as ever", "restarted", "away and restarted"),
        *(pytest.param(each, marks=pytest.mark.long) for each in ("away", "away while it ends the lease")),
    ],
)
def test_a_slot_is_given_back_whatever_happens_to_the_server(slots, forget, monkeypatch, caplog, case):
    """At once if Prefect answers, else when it does, without holding up the submission; and although a server that has
    restarted knows nothing of it."""
    monkeypatch.setattr(submission_limit, "PROMPTLY", 0.5)

    async def submit() -> float:
        async with SubmissionLimit(slots.name).turn():
            assert await asyncio.to_thread(lambda: slots.taken) == 1
            if "restarted" in case:
                await asyncio.to_thread(forget)
            if "away" in case:
                ending = "release_concurrency_slots_with_lease" if "lease" in case else "renew_concurrency_lease"
                away(monkeypatch, ending, 3)
            ended = time.monotonic()
        return time.monotonic() - ended

    assert loop.run(submit()) < 5
    until(lambda: slots.taken == 0)
    assert ("is given back when Prefect answers again" in caplog.text) == ("away" in case)


def test_a_server_that_restarts_while_it_is_told_is_told_again(slots, forget, monkeypatch):
    """Its reply is lost with the lease. That Prefect's client would repeat the request is no proof of its effect."""
    send, lost = httpx.AsyncClient.send, []

    async def sent(client: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        if request.url.path.endswith("decrement-with-lease") and not lost:
            lost.append(request)
            await asyncio.to_thread(forget)
            raise httpx.ReadError("reset", request=request)
        return await send(client, request, **options)

    monkeypatch.setattr(httpx.AsyncClient, "send", sent)

    async def submit() -> None:
        async with SubmissionLimit(slots.name).turn():
            pass

    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 5}):
        loop.run(submit())
        until(lambda: lost and not submission_limit._owed())
    assert slots.taken == 0


def test_a_slot_that_prefect_took_back_is_not_given_back_twice(slots, forget):
    """A process that was suspended finds its lease ended, and another's slot taken."""

    async def submit() -> None:
        slot = await SubmissionLimit(slots.name)._take()
        assert slot is not None
        slot.leased_until = 0.0
        await asyncio.to_thread(forget)
        await slot.give_back()

    loop.run(submit())
    assert slots.taken == 1


def test_a_process_that_ends_says_which_slot_it_keeps(slots, forget, monkeypatch, caplog):
    """It waits for a moment, and names the command that frees the slot."""
    for name in ("PROMPTLY", "AT_EXIT"):
        monkeypatch.setattr(submission_limit, name, 0.1)
    away(monkeypatch, "renew_concurrency_lease", 3)

    async def submit() -> None:
        async with SubmissionLimit(slots.name).turn():
            pass

    loop.run(submit())
    submission_limit._finish()
    assert f"prefect gcl update {slots.name} --active-slots 0" in caplog.text
    until(lambda: slots.taken == 0)
    until(lambda: not submission_limit._owed())
    caplog.clear()
    submission_limit._finish()
    assert caplog.text == ""


def test_a_slot_that_prefect_refuses_to_take_back_is_left_to_its_lease(slots, forget, monkeypatch, caplog):
    """Asking again is vain. The log says why, and what frees the slot if the lease does not."""
    away(monkeypatch, "renew_concurrency_lease", 1, status=403)

    async def submit() -> None:
        async with SubmissionLimit(slots.name).turn():
            pass

    loop.run(submit())
    assert not submission_limit._owed() and slots.taken == 1
    assert "refuses to take back" in caplog.text and "403" in caplog.text
    assert f"prefect gcl update {slots.name} --active-slots 0" in caplog.text


@pytest.fixture
def restarting_server(tmp_path: Path) -> Iterator[OwnPrefect]:
    """A Prefect server that may end and start again."""
    server = OwnPrefect(tmp_path)
    yield server
    server.end()


@pytest.mark.catches("slots left to their leases")
@pytest.mark.long
@pytest.mark.timeout(240)
def test_the_slot_of_a_server_that_restarts_is_free_again(restarting_server, unique):
    """A real server ends while the slot is held, and is started again: the next submission has its turn."""
    api = restarting_server.environment["PREFECT_API_URL"]
    slots = Slots(api, f"limit-{unique}")
    slots.create()

    def restart() -> None:
        restarting_server.end()
        restarting_server.start()

    async def submit() -> None:
        async with SubmissionLimit(slots.name).turn():
            await asyncio.to_thread(restart)
            assert await asyncio.to_thread(lambda: slots.taken) == 1

    with temporary_settings({PREFECT_API_URL: api}):
        loop.run(submit())
        until(lambda: slots.taken == 0, seconds=30)


def test_a_limit_that_is_not_there_is_an_error(slots, in_script, effects, unique):
    """The error has the command that creates it. Nothing was sent, and the same call places the order afterwards."""

    def place() -> None:
        place_order("echo", {"message": unique})

    def body() -> None:
        with pytest.raises(ConfigurationError, match=f"prefect gcl create {slots.name} --limit 4"):
            place()
        slots.create()
        slots.update(limit=0)
        with pytest.raises(
            ConfigurationError, match=rf"of which Prefect gives no slot: .* `prefect gcl update {slots.name} --limit N`"
        ):
            place()
        assert effects.count("/1/orders") == 0
        slots.update(limit=1)
        place()
        assert effects.count("/1/orders") == 1
        until(lambda: slots.taken == 0)

    in_script(body)
    assert [intent.state for intent in effects.intents("order")] == ["done"]


def test_without_prefect_a_submission_goes_on(unique, caplog):
    """A warning says that the limit is not kept, by its name."""

    async def submit() -> str:
        async with SubmissionLimit(unique).turn():
            return "submitted"

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        assert loop.run(submit()) == "submitted"
    assert f"The limit '{unique}' is not kept, since Prefect cannot be asked" in caplog.text
