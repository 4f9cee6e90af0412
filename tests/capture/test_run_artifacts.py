"""What a run took and made stands beside it in Prefect's UI."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mutants import mutate
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from ivcap_flows import recorded
from ivcap_flows.capture import hide, use_journal
from ivcap_flows.capture.prefect_artifacts import PrefectArtifact, key_for
from ivcap_flows.capture.run_artifacts import links_of, page_of, rows_of
from ivcap_flows.journal import Journal, NewIntent, RunIdentity
from ivcap_flows.provenance import Record, activity, entity

pytestmark = pytest.mark.canary


@task
@recorded
def double(source: Path, target: Path) -> Path:
    target.write_text(source.read_text() * 2)
    return target


@flow
@recorded
def doubling(source: Path, target: Path) -> str:
    double(source, target)
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return str(context.flow_run.id)


def shown(flow_run: str, count: int) -> list[Any]:
    chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]))
    end = time.monotonic() + 20
    with get_client(sync_client=True) as client:
        while True:
            found = client.read_artifacts(artifact_filter=chosen)
            if len(found) >= count or time.monotonic() > end:
                return found
            time.sleep(0.05)


def test_a_run_shows_its_inputs_and_outputs(prefect_server: dict[str, str], tmp_path: Path) -> None:
    """As a page and as a table with each sha256; what users named means nothing in Markdown."""
    source = tmp_path / "a `<b>` |x|.csv"
    source.write_text("1\n")
    settings = {PREFECT_API_URL: prefect_server["PREFECT_API_URL"], PREFECT_LOGGING_TO_API_ENABLED: False}
    with (
        temporary_settings(settings),
        Journal.open(f"sqlite:///{tmp_path / 'j.sqlite'}") as journal,
        use_journal(journal),
    ):
        flow_run = doubling(source, tmp_path / "made.csv")
        found = shown(flow_run, 2)
        [run] = journal.runs.recent()
    by_type: dict[str, Any] = {}
    for artifact in found:
        by_type.setdefault(artifact.type, artifact.data)
    pages = [artifact.data for artifact in found if artifact.type == "markdown"]
    page = next(page for page in pages if page.startswith("# "))
    assert run.id in page and "completed" in page and "`<b>`" not in page and "'<b>'" in page
    rows = by_type["table"] if isinstance(by_type["table"], list) else json.loads(by_type["table"])
    named = {Path(row["name"]).name: row for row in rows}
    assert named["made.csv"]["role"] == "output" and len(named["made.csv"]["sha256"]) == 64
    assert named[source.name]["role"] == "input"
    assert list(rows[0]) == ["name", "type", "role", "id", "sha256"]
    assert sorted(artifact.key for artifact in found) == ["data-doubling", "provenance-doubling"]


ASYNCHRONOUS = """
import asyncio
from prefect.runtime import flow_run
from ivcap_flows import flow

@flow
async def short():
    return flow_run.get_id()

if __name__ == "__main__":
    print(asyncio.run(short()))
"""


def test_an_asynchronous_flow_ends_without_a_traceback(prefect_server: dict[str, str], tmp_path: Path) -> None:
    """Its record is shown while the interpreter ends, which starts no thread that would send events."""
    script = tmp_path / "short.py"
    script.write_text(ASYNCHRONOUS)
    environment = {**prefect_server, "IVCAP_FLOWS_JOURNAL": os.environ["IVCAP_FLOWS_JOURNAL"]}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr and "atexit" not in done.stderr, done.stderr
    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]}):
        assert any(artifact.data.startswith("# ") for artifact in shown(done.stdout.strip(), 1))


@pytest.mark.parametrize(
    ("record", "link"),
    [
        (entity("102.1/7", "dataset", platform="https://provena.example"), "https://hdl.handle.net/102.1/7"),
        (activity("102.1/8", "model-run", platform="urn:ivcap-flows:embedded:x"), None),
        (
            entity("c", "code", remote="git@github.com:o/r.git", commit="a" * 40),
            f"https://github.com/o/r/commit/{'a' * 40}",
        ),
        (
            entity("c", "code", remote="https://g.example/o/r", commit="b" * 40),
            f"https://g.example/o/r/commit/{'b' * 40}",
        ),
        (entity("c", "code", remote="/srv/git/r", commit="c" * 40), None),
        (entity("c", "code", remote="https://x.example/](javascript:1)", commit="c" * 40), None),
    ],
)
def test_links_lead_to_what_is_public(record: Record, link: str | None) -> None:
    """A handle that only an embedded platform knows, and a repository on this machine, lead nowhere."""
    assert (f"({link})" in links_of([record])) if link else links_of([record]) == ""


def test_a_run_without_things_has_a_page_and_no_table(sqlite_url: str) -> None:
    """It says that there were none."""
    with Journal.open(sqlite_url) as journal:
        run = journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "r", "r")).run
    page = page_of(run, "failed", [], [], [], [], [])
    assert "none" in page and "## Orders" not in page and rows_of([], []) == []


def test_the_page_has_the_orders_and_attempts(sqlite_url: str) -> None:
    """With names, in tables that a name with a bar does not break; times are UTC, and the columns say so."""
    with Journal.open(sqlite_url) as journal:
        opened = journal.runs.open_attempt(RunIdentity("coast", "f.py:f", {}, "r", "r"))
        asked = {"platform": "p", "account": "a", "scope": "s", "request": {}, "subject": "tides"}
        for key, name in (("k1:1", "north|west"), ("k1:2", None)):
            journal.intents.claim(NewIntent(key=key, base_key=key, noun="order", name=name, run_id="r", **asked))
        journal.runs.close_attempt(opened.attempt.id, "failed", "out of luck")
        page = page_of(
            journal.runs.get("r"), "failed", journal.runs.attempts("r"), journal.intents.where(run_id="r"), [], [], []
        )
    lines = page.splitlines()
    assert lines[0] == "# `coast`: failed"
    assert "| no. | outcome | begun (UTC) | ended (UTC) | cause |" in lines
    assert any(line.startswith("| `1` | `failed` | `20") and line.endswith("| `out of luck` |") for line in lines)
    assert any(line.startswith("| `north\\|west` | `tides` | `intent` | `20") for line in lines)
    assert any(line.startswith("| `tides` | `tides` |") for line in lines)


def test_an_order_of_a_real_platform_is_a_link(sqlite_url: str) -> None:
    """In the page, to where the platform's API shows it."""
    urn, there = "urn:ivcap:order:1", "https://api.example.org"
    asked = {"account": "a", "scope": "s", "request": {}, "subject": "tides", "noun": "order", "run_id": "r"}
    with Journal.open(sqlite_url) as journal:
        journal.runs.open_attempt(RunIdentity("coast", "f.py:f", {}, "r", "r"))
        claimed = journal.intents.claim(NewIntent(key="k1:1", base_key="k1:1", platform=there, **asked)).intent
        page = page_of(journal.runs.get("r"), "failed", [], [replace(claimed, urn=urn)], [], [], [])
    assert f"| [{urn}]({there}/1/orders/{urn}) |" in page


def test_no_name_is_markdown(sqlite_url: str) -> None:
    """No name, cause or URN leaves its code span or its cell, whatever backticks, bars and backslashes it has."""
    marks = "![x](https://evil.example/x.png)<img src=x>"
    nasty = [f"{before}{marks}{before}" for before in ("`", "|", r"\|", r"\\|", r"\`|", "``\n\n", r"\\\|`")]
    asked = {"platform": "https://p.example", "account": "a", "scope": "s", "request": {}, "noun": "order"}
    with Journal.open(sqlite_url) as journal:
        opened = journal.runs.open_attempt(RunIdentity(nasty[0], "f.py:f", {}, "r", "r"))
        for number, name in enumerate(nasty):
            journal.intents.claim(
                NewIntent(key=f"k{number}:1", base_key=f"k{number}", name=name, subject=name, run_id="r", **asked)
            )
        journal.runs.close_attempt(opened.attempt.id, "failed", nasty[3])
        work = [replace(row, urn=f"urn:ivcap:order:{row.name}") for row in journal.intents.where(run_id="r")]
        things = [entity(name, "file", path=name) for name in nasty]
        page = page_of(journal.runs.get("r"), "failed", journal.runs.attempts("r"), work, things, things, [])
    assert page.count("evil.example") > 4 * len(nasty)
    for line in page.splitlines():
        cells = re.split(r"(?<!\\)(?:\\\\)*\|", line) if line.startswith("|") else [line]
        assert all("evil" not in re.sub("`[^`]*`", "", cell) for cell in cells), line


def test_no_artifact_shows_a_secret() -> None:
    """Neither in a table, such as that of what could not be delivered, nor in its description."""
    hide("8 Zeichen/1")
    reason = "no access with <8 Zeichen/1> at postgresql://ada:Zx81kq@db/x"
    artifact = PrefectArtifact("table", [{"reason": reason}], f"What is left: {reason}", None)
    for text in (artifact.data, artifact.description):
        assert "no access with <" in text and "Zeichen" not in text and "Zx81kq" not in text


FLOWS = ["my-flow", "my_flow", "My Flow", "MY-FLOW", "my--flow", "日本語のフロー", "🌊🌊", "..", "…", "\ud800"]


def told_apart() -> None:
    keys = {key_for("orders", name) for name in FLOWS}
    assert len(keys) == len(FLOWS)
    assert all(re.fullmatch("[a-z0-9]+(-[a-z0-9]+)+", key) for key in keys), keys


@pytest.mark.mutant(None)
def test_keys_of_artifacts_tell_flows_apart() -> None:
    """Each flow's artifacts have a key of their own, of the characters that Prefect takes.

    Prefect shows all artifacts of one key as versions of one. It makes `my-flow` of the function `my_flow`, so the
    usual name is its own key.
    """
    told_apart()
    assert key_for("orders", "my-flow") == "orders-my-flow"
    assert key_for("orders", "Coastal El Niño (v2)").startswith("orders-coastal-el-ni-o-v2-")


@pytest.mark.mutant("keys by letters alone")
def test_a_build_whose_keys_are_letters_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails on it."""
    mutate("keys by letters alone", monkeypatch.setattr)
    with pytest.raises(AssertionError):
        told_apart()
