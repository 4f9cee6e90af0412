"""The shipped automations, created by Prefect's own command, on real Prefect servers with real workers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from eventually import until
from other_processes import end_at_once, settings_of_platforms
from prefect_api import ask_prefect
from prefect_servers import own_prefect_server

from ivcap_flows.in_prefect import events
from ivcap_flows.journal import Journal

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

PREFECT = [sys.executable, "-m", "prefect"]
ROOT = Path(__file__).parents[2]
FILE = ROOT / "deployments" / "automations.yaml"
NOBODY = "00000000-0000-0000-0000-000000000000"


def example() -> str:
    """The automation of the documentation's page."""
    page = (ROOT / "docs/how-to/react-with-automations.md").read_text(encoding="utf-8")
    [found] = re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return str(found)


def shipped() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["automations"]
    return found


def create(environment: dict[str, str], file: Path) -> None:
    command = [*PREFECT, "automation", "create", "--from-file", str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Failed" not in done.stdout, done.stdout + done.stderr


@pytest.mark.long
def test_each_automation_is_created(prefect_server: dict[str, str], tmp_path: Path) -> None:
    """All of the file, enabled, with their triggers, and the example of the page."""
    create(prefect_server, FILE)
    (tmp_path / "example.yaml").write_text(example(), encoding="utf-8")
    create(prefect_server, tmp_path / "example.yaml")
    made = {each["name"]: each for each in ask_prefect(prefect_server, "/automations/filter", {"limit": 200})}
    for automation in (*shipped(), yaml.safe_load(example())):
        found = made[automation["name"]]
        ask_prefect(prefect_server, f"/automations/{found['id']}", method="DELETE")
        assert found["enabled"] and found["description"] == automation.get("description", "")
        assert set(found["trigger"]["expect"]) == set(automation["trigger"]["expect"])
        assert found["trigger"]["within"] == automation["trigger"]["within"]
        assert [each["type"] for each in found["actions"]] == [each["type"] for each in automation["actions"]]


def test_automations_name_events_and_states_that_there_are() -> None:
    """An event that nothing emits would leave an automation silent."""
    expected = {name for automation in shipped() for name in automation["trigger"]["expect"]}
    ours = {name for name in expected if not name.startswith("prefect.")}
    assert ours and ours | set(yaml.safe_load(example())["trigger"]["expect"]) <= set(events.KINDS)
    named = {name.rpartition(".")[2] for name in expected} - {name.rpartition(".")[2] for name in ours}
    code = "".join(
        (ROOT / "ivcap_flows/tasks" / name).read_text(encoding="utf-8")
        for name in ("orphan_report.py", "delivering.py")
    )
    assert {name for name in named if f'"{name}"' not in code} == {"*", "Crashed"}
    for automation in shipped():
        for action in automation["actions"]:
            used = set(re.findall(r"event\.payload\.(\w+)", json.dumps(action)))
            known = [
                set(events.KINDS[name].payload.split()) for name in automation["trigger"]["expect"] if name in ours
            ]
            assert all(used <= each for each in known), automation["name"]


@pytest.fixture(scope="session")
def automated_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server whose automations act; the value is the environment in which its clients run."""
    home = tmp_path_factory.mktemp("automated")
    # 30 s are the shortest heartbeat that Prefect takes.
    with own_prefect_server(
        home, PREFECT_WORKER_QUERY_SECONDS="1", PREFECT_FLOWS_HEARTBEAT_FREQUENCY="30"
    ) as environment:
        yield environment


@pytest.mark.long
def test_a_run_whose_worker_was_killed_completes_untouched(
    automated_server: dict[str, str], embedded_platform: Any, tmp_path: Path
) -> None:
    """The worker and all its processes are killed at once, as with their machine, and another worker is started. The
    run is marked as Crashed, tried again and completes, with the one order that the killed process had placed."""
    automations = shipped()[:2]
    # A heartbeat is sent every half minute here, so that the test need not wait for ten.
    automations[0]["trigger"]["within"] = 40
    file = tmp_path / "automations.yaml"
    file.write_text(yaml.safe_dump({"automations": automations}), encoding="utf-8")
    create(automated_server, file)
    counted = tmp_path / "counted"
    counted.touch()
    ours = settings_of_platforms()
    environment = {**automated_server, **ours, "COUNTED": str(counted)}
    pool = f"killed-{os.getpid()}"
    ask_prefect(automated_server, "/work_pools/", {"name": pool, "type": "process"})
    flow = ask_prefect(automated_server, "/flows/", {"name": "waits-long"})
    place = {"path": str(Path(__file__).parent), "entrypoint": "automated_flow.py:waits_long", "pull_steps": []}
    made = {"name": "killed", "flow_id": flow["id"], "work_pool_name": pool, "tags": ["ivcap-flows"], **place}
    deployment = ask_prefect(automated_server, "/deployments/", made)["id"]
    begin = {"parameters": {"seconds": 20.0}, "state": {"type": "SCHEDULED"}}
    run = ask_prefect(automated_server, f"/deployments/{deployment}/create_flow_run", begin)["id"]

    workers: list[subprocess.Popen[bytes]] = []

    def start_worker() -> subprocess.Popen[bytes]:
        with open(tmp_path / "worker.log", "ab") as log:
            command = [*PREFECT, "worker", "start", "--pool", pool]
            workers.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
        return workers[-1]

    def state() -> str:
        return str(ask_prefect(automated_server, f"/flow_runs/{run}", method="GET")["state"]["type"])

    def log() -> str:
        return (tmp_path / "worker.log").read_text(encoding="utf-8")[-6000:]

    try:
        killed = start_worker()
        with Journal.open(ours["IVCAP_FLOWS_JOURNAL"]) as journal:
            until(lambda: journal.intents.where(noun="order", state="done"), seconds=120, said=log)
            end_at_once(killed)
            assert state() == "RUNNING"
            start_worker()
            until(lambda: state() == "COMPLETED", seconds=240, pause=0.2, said=log)
            found = journal.runs.get(run)
            # The journal has the end after Prefect has it.
            until(
                lambda: [attempt.outcome for attempt in journal.runs.attempts(found.id)],
                lambda outcomes: outcomes == ["lost", "completed"],
                said=log,
            )
            [order] = journal.intents.where(noun="order")
            assert (order.run_id, order.status) == (found.id, "succeeded")
            # A retry of a run that has completed already, as by an automation that is late.
            again = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}}
            assert ask_prefect(automated_server, f"/flow_runs/{run}/set_state", again)["status"] == "ACCEPT"
            until(
                lambda: len(journal.runs.attempts(found.id)) == 3 and state() == "COMPLETED",
                seconds=120,
                pause=0.2,
                said=log,
            )
            assert [order.key] == [each.key for each in journal.intents.where(noun="order")]
    finally:
        for worker in workers:
            end_at_once(worker)
    placed = [each for each in embedded_platform.requests("POST", "/1/orders") if (each["status"] or 500) < 300]
    assert len(placed) == 1
    assert len(counted.read_text(encoding="utf-8").splitlines()) == 1
    states = ask_prefect(automated_server, f"/flow_run_states/?flow_run_id={run}", method="GET")
    names = [state["name"] for state in sorted(states, key=lambda state: state["timestamp"])]
    assert names.count("Crashed") == 1
    assert names[names.index("Crashed") + 1] == "AwaitingRetry"


@pytest.mark.long
def test_a_parked_run_is_not_taken_for_a_dead_one(
    automated_server: dict[str, str], embedded_platform: Any, tmp_path: Path
) -> None:
    """It sends no heartbeat while it is parked, for longer than the automation waits."""
    [crash, _, *_] = shipped()
    crash["trigger"]["within"] = 30
    crash["name"] = "impatient"
    file = tmp_path / "impatient.yaml"
    file.write_text(yaml.safe_dump(crash), encoding="utf-8")
    create(automated_server, file)
    ours = settings_of_platforms()
    (tmp_path / "counted").touch()
    parking = {"COUNTED": str(tmp_path / "counted"), "IVCAP_FLOWS_PARK_AFTER": "0", "PARK_FOR_AT_LEAST": "45"}
    pool = f"parked-{os.getpid()}"
    ask_prefect(automated_server, "/work_pools/", {"name": pool, "type": "process"})
    flow = ask_prefect(automated_server, "/flows/", {"name": "parks"})
    place = {"path": str(Path(__file__).parent), "entrypoint": "parking_flows.py:parks", "pull_steps": []}
    made = {"name": "parked", "flow_id": flow["id"], "work_pool_name": pool, "tags": ["ivcap-flows"], **place}
    deployment = ask_prefect(automated_server, "/deployments/", made)["id"]
    begin = {"parameters": {"mark": "parked", "seconds": 30.0}, "state": {"type": "SCHEDULED"}}
    run = ask_prefect(automated_server, f"/deployments/{deployment}/create_flow_run", begin)["id"]
    with open(tmp_path / "worker.log", "wb") as log:
        command = [*PREFECT, "worker", "start", "--pool", pool]
        worker = subprocess.Popen(
            command, env={**automated_server, **ours, **parking}, stdout=log, stderr=subprocess.STDOUT
        )

    def names() -> list[str]:
        states = ask_prefect(automated_server, f"/flow_run_states/?flow_run_id={run}", method="GET")
        return [state["name"] for state in sorted(states, key=lambda state: state["timestamp"])]

    try:
        until(names, lambda names: names[-1] in ("Completed", "Crashed"), 200, pause=0.2)
    finally:
        end_at_once(worker)
        automations = ask_prefect(automated_server, "/automations/filter", {"limit": 200})
        [impatient] = [each["id"] for each in automations if each["name"] == "impatient"]
        ask_prefect(automated_server, f"/automations/{impatient}", method="DELETE")
    assert "Parked" in names() and "Crashed" not in names()


@pytest.fixture
def received() -> Iterator[tuple[str, list[Any]]]:
    """The address of a webhook, and what was sent to it."""
    got: list[Any] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing to say."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", got
    server.shutdown()
    server.server_close()


EMIT = """
from prefect import flow
from prefect.states import Completed
from ivcap_flows.capture import journal
from ivcap_flows.journal import NewIntent, RunIdentity
from ivcap_flows.in_prefect.events import emit_orphans

@flow
def report_orphans():
    intents = journal().intents
    journal().runs.open_attempt(RunIdentity("f", "f.py:f", {}, "r1", "r1"))
    wanted = NewIntent("k1:a", "k1:a", "order", "https://x", "urn:acc", "account", {}, subject="echo", run_id="r1")
    placed = intents.settle(
        intents.mark_sent(intents.claim(wanted).intent), urn="urn:ivcap:order:o", outcome={}, how="sent"
    )
    emit_orphans([placed], "crashed")
    journal().deliveries.record("ivcap:x", "r1@1", "dead", run_id="r1", reason="too large")
    return Completed(name="OrphansFound", message="No live run waits for 1 order.")

report_orphans()
"""


@pytest.mark.long
def test_notifications_are_sent(
    automated_server: dict[str, str], received: tuple[str, list[Any]], tmp_path: Path
) -> None:
    """With the id of a block in the file: for an orphan, a refused delivery, and a report that found something."""
    address, got = received
    block = f"""
from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block
made = Block(name="ops", url="{address}", json_data={{"subject": "{{{{subject}}}}", "body": "{{{{body}}}}"}})
print(made.save("ops", overwrite=True))
"""
    run = {"env": automated_server, "check": True, "text": True, "capture_output": True}
    identifier = subprocess.run([sys.executable, "-c", block], **run).stdout.strip()
    assert NOBODY in FILE.read_text(encoding="utf-8")
    file = tmp_path / "automations.yaml"
    whole = yaml.safe_load(FILE.read_text(encoding="utf-8").replace(NOBODY, identifier))
    file.write_text(yaml.safe_dump({"automations": whole["automations"][2:]}), encoding="utf-8")
    create(automated_server, file)
    environment = {**automated_server, "IVCAP_FLOWS_JOURNAL": f"sqlite:///{tmp_path / 'notified.sqlite'}"}
    subprocess.run([sys.executable, "-c", EMIT], **{**run, "env": environment})
    until(lambda: got, lambda got: len(got) >= 3, 120)
    bodies = {each["subject"]: each["body"] for each in got}
    orphan, refused, report = (bodies[automation["actions"][0]["subject"]] for automation in shipped()[2:])
    assert "Run r1 ended as crashed and left urn:ivcap:order:o" in orphan
    assert "ivcap:x refused the record of run r1: too large" in refused
    assert report == "report-orphans: No live run waits for 1 order."
