"""What a run took and made stands beside it in Prefect's UI."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eventually import until
from markdown_it import MarkdownIt
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from ivcap_flows import recorded
from ivcap_flows.capture import hide, use_journal
from ivcap_flows.identity import EMBEDDED
from ivcap_flows.in_prefect import run_page
from ivcap_flows.in_prefect.artifacts import PrefectArtifact, key_for
from ivcap_flows.in_prefect.run_page import MODEL_RUN, RunPage
from ivcap_flows.journal import Journal, NewIntent, RunIdentity
from ivcap_flows.journal.lineages import RunEnds
from ivcap_flows.provenance import Record, entity

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


@flow
@recorded
def looking() -> str:
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return str(context.flow_run.id)


def wait_until_shown() -> None:
    for thread in run_page._showing:
        thread.join()


def shown(flow_run: str, count: int) -> list[Any]:
    chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]))
    with get_client(sync_client=True) as client:
        return until(lambda: client.read_artifacts(artifact_filter=chosen), lambda found: len(found) >= count)


def test_a_run_shows_what_it_was(prefect_server, tmp_path):
    """On one page; what users named means nothing in it. A run that makes nothing new shows none."""
    source, target = tmp_path / "a `<b>` |x|.csv", tmp_path / "made.csv"
    source.write_text("1\n")
    settings = {PREFECT_API_URL: prefect_server["PREFECT_API_URL"], PREFECT_LOGGING_TO_API_ENABLED: False}
    with (
        temporary_settings(settings),
        Journal.open(f"sqlite:///{tmp_path / 'j.sqlite'}") as journal,
        use_journal(journal),
    ):
        flow_run, idle = doubling(source, target), looking()
        [artifact] = shown(flow_run, 1)
        run = journal.runs.get(flow_run)
        wait_until_shown()
        assert shown(idle, 0) == []
    assert artifact.key == "provenance-doubling" and artifact.type == "markdown"
    assert artifact.data.startswith("# doubling: completed\n") and run.id in artifact.data
    assert (
        "Inputs (1)" in artifact.data and "Outputs (1)" in artifact.data and f"<li>file {target}</li>" in artifact.data
    )
    assert "<b>" not in artifact.data and "a `&lt;b&gt;` |x|.csv" in artifact.data


NOTHING = RunEnds([], [], {}, {}, 0)
THERE = "https://api.example.org"
ASKED = {"account": "a", "scope": "s", "subject": "tides", "noun": "order", "run_id": "r", "platform": THERE}


@pytest.fixture
def page_of(sqlite_url):
    """Return a function that makes the page of a run, which has these attempts, orders and things."""
    with Journal.open(sqlite_url) as journal:

        def page(
            *orders: dict[str, Any],
            name: str = "coast",
            outcome: Any = "completed",
            cause: str | None = None,
            tries: int = 1,
            ends: RunEnds = NOTHING,
            around: Sequence[Record] = (),
            **changed: Any,
        ) -> str:
            for _ in range(tries):
                opened = journal.runs.open_attempt(RunIdentity(name, "f.py:f", {}, "r", "r"))
                for number, order in enumerate(orders):
                    asked = {**ASKED, "request": {}, "attempt_id": opened.attempt.id, **order}
                    key = f"{asked['noun']} {number}"
                    journal.intents.claim(NewIntent(key=key, base_key=key, **asked))
                journal.runs.close_attempt(opened.attempt.id, outcome, cause)
            work = [replace(row, **changed) for row in journal.intents.where(run_id="r")]
            attempts = journal.runs.attempts("r")
            return RunPage(journal.runs.get("r"), outcome, attempts, work, ends, around, "1 order").markdown()

        yield page


@pytest.mark.parametrize(
    ("id_", "platform", "link"),
    [
        ("102.1/7", "https://provena.example", "https://hdl.handle.net/102.1/7"),
        ("102.1/8", "urn:ivcap-flows:embedded:x", None),
    ],
)
def test_a_handle_is_a_link_where_anybody_can_read_it(page_of, id_, platform, link):
    """One that only an embedded platform knows leads nowhere."""
    page = page_of({"noun": MODEL_RUN, "platform": platform}, urn=id_, state="done")
    assert f"| tides | {f'[{id_}]({link})' if link else id_} |" in page


def test_an_order_has_its_products_and_its_model_run_in_its_row(page_of):
    """A column without a word is left out, as that of how they ended where all succeeded."""
    order, product = "urn:ivcap:order:1", entity("urn:ivcap:artifact:1", "artifact", name="index.csv")
    ends = RunEnds([], [product], {product.id: order}, {order: "102.1/7"}, 1)
    page = page_of({"platform": EMBEDDED}, urn=order, status="succeeded", ends=ends)
    assert "| order | products | model run |" in page and "| tides | index.csv | 102.1/7 |" in page


@pytest.mark.parametrize(
    ("remote", "link"),
    [
        ("git@github.com:o/r.git", f"https://github.com/o/r/commit/{'a' * 40}"),
        ("git@github.com:22/r.git", f"https://github.com/22/r/commit/{'a' * 40}"),
        ("ssh://git@github.com/o/r.git", f"https://github.com/o/r/commit/{'a' * 40}"),
        ("ssh://git@g.example:22/o/r.git", f"https://g.example/o/r/commit/{'a' * 40}"),
        ("https://g.example/o/r", f"https://g.example/o/r/commit/{'a' * 40}"),
        ("/srv/git/r", None),
        ("https://x.example/](javascript:1)", None),
    ],
)
def test_a_commit_leads_to_its_repository(page_of, remote, link):
    """To its web view, unless it is a folder of this machine, or no plain address."""
    page = page_of(around=[entity("c", "code", remote=remote, commit="a" * 40)])
    commit = "a" * 12
    assert ("commit " + (f"[{commit}]({link})" if link else commit)) in page and "javascript" not in page


def test_orders_are_told_apart(page_of):
    """By name, else by the parameters in which they differ; one that failed says why. Columns without a word go."""
    nameless = [{"request": {"parameters": {"base": "1981", "month": month}}} for month in ("01", "02")]
    page = page_of({"name": "north|west"}, *nameless)
    assert "| order | status |\n" in page
    for name in (r"north\|west", "tides month=01", "tides month=02"):
        assert f"| {name} | claimed |" in page
    page = page_of({}, status="failed", error="out of *luck*", state="done", urn="urn:ivcap:order:1")
    assert rf"[north\|west]({THERE}/1/orders/urn:ivcap:order:1) | failed: out of \*luck\* |" in page
    assert "3 failed, nothing in doubt" in page


def test_a_page_that_leaves_out_things_says_so(page_of):
    """Of a batch, for instance, which registers thousands of model runs."""
    assert "the first 200 are shown" in page_of({}, ends=RunEnds([], [], {}, {}, 20_000))
    assert "are shown" not in page_of({})


def test_what_an_earlier_attempt_did_is_counted(page_of):
    """With the attempts and what ended them, folded."""
    page = page_of({}, tries=2, outcome="failed", cause="out of <luck>")
    assert "in 2 attempts. 1 kept from an earlier attempt, nothing failed, nothing in doubt." in page
    assert "Attempts (2)" in page and "UTC failed: out of &lt;luck&gt;</li>" in page


def test_no_name_is_markdown(page_of):
    """No name, cause or URN means anything in Markdown or HTML, whatever backticks, bars and backslashes it has."""
    marks = "![x](https://evil.example/x.png)<img src=x>"
    nasty = [f"{before}{marks}{before}" for before in ("`", "|", r"\|", r"\\|", r"\`|", "``\n\n", r"\\\|`", "\u202e")]
    things = [entity(name, "file", path=name) for name in nasty]
    ends = RunEnds(things, things, dict.fromkeys(nasty, "urn:ivcap:order:1"), {}, 2 * len(nasty))
    orders = [{"name": name, "subject": name} for name in nasty]
    page = page_of(
        *orders, name=nasty[0], tries=2, outcome="failed", cause=nasty[3], ends=ends, urn="urn:ivcap:order:1"
    )
    assert page.count("evil.example") > 4 * len(nasty)
    html = MarkdownIt("commonmark").enable("table").render(page)
    assert "<img" not in html and 'href="https://evil' not in html and "\u202e" not in html
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows} == {4}


def test_no_artifact_shows_a_secret():
    """Neither in a table, such as that of what could not be delivered, nor in its description."""
    hide("8 Zeichen/1")
    reason = "no access with <8 Zeichen/1> at postgresql://ada:Zx81kq@db/x"
    artifact = PrefectArtifact("table", [{"reason": reason}], f"What is left: {reason}", None)
    for text in (artifact.data, artifact.description):
        assert "no access with <" in text and "Zeichen" not in text and "Zx81kq" not in text


FLOWS = ["my-flow", "my_flow", "My Flow", "MY-FLOW", "my--flow", "日本語のフロー", "🌊🌊", "..", "…", "\ud800"]


@pytest.mark.catches("keys by letters alone")
def test_keys_of_artifacts_tell_flows_apart():
    """Each flow's artifacts have a key of their own, of the characters that Prefect takes.

    Prefect shows all artifacts of one key as versions of one. It makes `my-flow` of the function `my_flow`, so the
    usual name is its own key.
    """
    keys = {key_for("orders", name) for name in FLOWS}
    assert len(keys) == len(FLOWS)
    assert all(re.fullmatch("[a-z0-9]+(-[a-z0-9]+)+", key) for key in keys), keys
    assert key_for("orders", "my-flow") == "orders-my-flow"
    assert key_for("orders", "Coastal El Niño (v2)").startswith("orders-coastal-el-ni-o-v2-")
