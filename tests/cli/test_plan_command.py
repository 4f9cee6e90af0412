"""`plan`: what a flow would ask for, without asking."""

import sys
import uuid
from pathlib import Path

import pytest

from ivcap_flows.journal.intents import Intents

FLOWS = Path(__file__).with_name("recorded_flows.py")


def changes(embedded):
    """Requests that are no reading, and no login."""
    found = [r for r in embedded.requests() if r["method"] not in ("GET", "HEAD")]
    return [r for r in found if not r["path"].endswith(("/list", "/token"))]


@pytest.mark.long
def test_a_plan_ends_at_the_wait_and_sends_nothing(ivcap_flows, embedded_platform):
    """Parameters are read by their types; what comes after the wait is not in the plan, nor is anything on record."""
    flow, message = f"{FLOWS}:considered", uuid.uuid4().hex
    said = ivcap_flows("plan", flow, "-p", f"message={message}", "--param", "times=2", "--json")
    assert (said.status, said.err) == (0, "")
    planned = [(e["source"], e["noun"], e["name"], e["subject"]) for e in said.json["effects"]]
    assert planned == [("new", "order", f"part {number}", "echo") for number in range(2)]
    assert "needs the results of 2 requests, and a plan sends nothing" in said.json["end"]
    assert changes(embedded_platform) == []
    refused = ivcap_flows("runs", "--json")
    assert refused.status == 2 and "There is no journal" in refused.err


def test_what_an_unfinished_run_has_is_kept(on_record, world, embedded_platform, monkeypatch):
    """The accepted order of the lost run is kept; the other is found on the platform. None is asked for again."""
    # The flow replaces this.
    monkeypatch.setattr(Intents, "mark_in_doubt", Intents.mark_in_doubt)
    [run] = on_record("runs", "--flow", "interrupted", "--json").json
    kept, _ = on_record("orders", "--run", run["id"], "--json").json
    embedded_platform.forget_requests()
    message = f"message={run['parameters']['message']}"
    said = on_record("plan", f"{world.flows}:interrupted", "-p", message)
    rows = [line.split() for line in said.out.splitlines()[2:-1]]
    assert rows[0] == ["kept", "order", "echo", kept["urn"], "run", run["id"], message]
    assert rows[1][:3] == ["adopted", "order", "echo"] and len(rows) == 2
    assert said.status == 0 and said.out.splitlines()[-1].startswith("The flow ran to its end")
    assert changes(embedded_platform) == []


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module in the working directory."""
    name = f"planned_{uuid.uuid4().hex}"
    text = """
from prefect import flow, task

from ivcap_flows.tasks.ivcap import place_order, wait_for_orders

@flow
async def careless(times: int):
    print("aloud")
    raise ValueError("of its own")

@task
def requested(names: list[str]):
    for name in names:
        yield place_order("echo", {"message": name}, name=name)

@flow
def taken(names: list[str]):
    return [*requested(names[:1]), *requested.submit(names[1:]).result()]

@flow
def edited(series: str):
    place_order("cli-upper", {"series": series})
    wait_for_orders([place_order("echo", {"message": series})])

plain = 1
"""
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    # An empty entry would be the working directory already.
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    return name


def test_a_flow_that_fails_is_told(ivcap_flows, module):
    """`module:flow`, an asynchronous one; what it prints is not in the plan; the status is 1."""
    said = ivcap_flows("plan", f"{module}:careless", "-p", "times=1", "--json")
    assert (said.status, said.json) == (1, {"effects": [], "end": "The flow failed."})
    assert said.err == "aloud\nValueError: of its own\n"


def test_the_plan_of_a_generator_has_what_all_its_items_request(ivcap_flows, module):
    """Here of a task, called and submitted; a flow is called as `run` calls it (test_run.py)."""
    said = ivcap_flows("plan", f"{module}:taken", "-p", "names=[a, b]", "--json")
    assert [(each["source"], each["name"]) for each in said.json["effects"]] == [("new", "a"), ("new", "b")]


def test_what_an_earlier_order_could_spare_is_counted(on_record, world, module):
    """With the word that uses it, and its URN at what equals it."""
    said = on_record("plan", f"{module}:edited", "-p", f"series={world.made['series']}")
    rows = [line.split() for line in said.out.splitlines()]
    assert rows[2][:3] == ["new", "order", "cli-upper"] and ["equals", world.made["order"]] == rows[2][3:5]
    assert "1 of 2 new orders and jobs equals an earlier one that has succeeded. With `reuse=True`" in said.out
    machine = on_record("plan", f"{module}:edited", "-p", f"series={world.made['series']}", "--json").json
    assert [each["equals"] for each in machine["effects"]] == [world.made["order"], None]
