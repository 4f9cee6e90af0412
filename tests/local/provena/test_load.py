"""Lists, search and lineage stay fast with 100,000 registry items, 50,000 model runs and 50,000 jobs."""

from __future__ import annotations

import asyncio
import re
import time

import httpx
import jwt
import psutil
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from ivcap_flows.local.provena.keycloak.state import Key
from ivcap_flows.local.provena.platform import EmbeddedProvena

pytestmark = pytest.mark.long

DATASETS, RUNS, JOBS, GROUPED = 50_000, 50_000, 50_000, 500
COUNTED = 10
"""Steps of SQLite's machine between two counts."""
STEPS = 12_000
"""Steps that a page of 50 may take: some 51 rows with what is around them, and the rights on each."""


class Filled:
    """An embedded platform in this process whose database queries are recorded."""

    def __init__(self, root, collection):
        self.embedded = EmbeddedProvena(root, "http://127.0.0.1", 0.1, None)
        self.store = self.embedded._store
        roles = [
            f"{stem}-{level}" for stem in ("entity-registry", "job-service") for level in ("read", "write", "admin")
        ]
        claims = {
            "preferred_username": "embedded-user",
            "email": "embedded-user@example.org",
            "realm_access": {"roles": roles},
            "exp": time.time() + 3600,
        }
        token = jwt.encode(claims, Key(root).private, "RS256")
        self.headers = {"Authorization": f"Bearer {token}"}
        self.transport = httpx.ASGITransport(Starlette(routes=[Mount("/provena", self.embedded.app)]))
        self.steps, self.plans = 0, []
        self.fill(collection)
        self.asked = self.store.rows
        self.store.rows = self.watched
        self.store.row = lambda sql, *values: next(iter(self.watched(sql, *values)), None)

    def ask(self, api, method, path, **more):
        async def send():
            async with httpx.AsyncClient(transport=self.transport, base_url="http://127.0.0.1") as http:
                return await http.request(method, f"/provena/{api}{path}", headers=self.headers, **more)

        return asyncio.run(send())

    def ok(self, api, method, path, **more):
        reply = self.ask(api, method, path, **more)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def fill(self, collection):
        organisation = self.ok("registry", "POST", "/registry/general/list", json={"page_size": 50})["items"][0]["id"]
        body = collection(organisation)
        elsewhere = {"reposited": False, "uri": "urn:elsewhere:0", "description": "d"}
        body["dataset_info"] |= {"access_info": elsewhere, "name": "a dataset of many"}
        self.dataset = self.ok("data", "POST", "/register/mint-dataset", json=body)["handle"]
        numbers = f"WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {DATASETS})"
        new_item = "json_set(item, '$.id', '102.100.100/' || ({first} + n), '$.display_name', 'item ' || n)"
        at = "created_timestamp - 200000 + n, updated_timestamp - 200000 + n, 'item ' || n"
        columns = "locked, lock_history, visible_from FROM items, counted WHERE id = ?"
        run = self.store.run
        with self.store.transaction():
            run(
                f"INSERT INTO items {numbers} SELECT '102.100.100/' || (1000000 + n), item_subtype, record_type, {at},"
                " 'urn:elsewhere:' || n, release_approver, release_status, release_timestamp,"
                f" {new_item.format(first=1000000)}, access, {columns}",
                self.dataset,
            )
            # Runs share the form of a dataset here: what a list reads of them is the same.
            run(
                f"INSERT INTO items {numbers} SELECT '102.100.100/' || (2000000 + n), 'MODEL_RUN', record_type, {at},"
                " NULL, NULL, NULL, NULL,"
                f" json_set({new_item.format(first=2000000)}, '$.item_subtype', 'MODEL_RUN'), access, {columns}",
                self.dataset,
            )
            run(
                f"INSERT INTO item_words (rowid, item_subtype, words) {numbers}"
                " SELECT 2000000 + n, 'MODEL_RUN', 'a run of the model number' || n FROM counted"
            )
            run(
                f"INSERT INTO jobs {numbers} SELECT 'session' || n, 1000000 + n / 7, 'embedded-user',"
                f" 'batch' || (n / {GROUPED}), 'PROV_LODGE', 'MODEL_RUN_PROV_LODGE', '{{}}', 'SUCCEEDED', NULL, '{{}}',"
                " NULL FROM counted"
            )
            links = {
                "'102.100.100/' || (2000000 + n), 'used', 'M'",
                "'102.100.100/' || (2000000 + n), 'used', 'W'",
                "'102.100.100/' || (2000000 + n), 'wasAssociatedWith', 'P'",
                f"'102.100.100/' || (2000000 + n), 'used', '{self.dataset}'",
                "'102.100.100/' || (1000000 + n), 'wasGeneratedBy', '102.100.100/' || (2000000 + n)",
                "'W', 'hadMember', 'M'",
            }
            for link in links:
                run(f"INSERT INTO graph_links {numbers} SELECT '102.100.100/' || (2000000 + n), {link} FROM counted")
            run("INSERT OR REPLACE INTO graph_edges SELECT source, target, type FROM graph_links")
            ends = "SELECT source AS id FROM graph_edges UNION SELECT target FROM graph_edges"
            run(f"INSERT INTO graph_items SELECT id, 'ENTITY', 'DATASET' FROM ({ends})")

    def watched(self, sql, *values):
        self.plans += [row["detail"] for row in self.asked(f"EXPLAIN QUERY PLAN {sql}", *values)]

        def count():
            self.steps += COUNTED

        connection = self.store._db
        connection.set_progress_handler(count, COUNTED)
        try:
            return self.asked(sql, *values)
        finally:
            connection.set_progress_handler(None, 0)

    def counted(self, *question, **more):
        """Return an answer, the number of database steps it took, and the query plan."""
        self.steps, self.plans = 0, []
        answer = self.ok(*question, **more)
        return answer, self.steps, list(self.plans)


@pytest.fixture(scope="module")
def filled(tmp_path_factory, a_collection):
    made = Filled(tmp_path_factory.mktemp("load"), a_collection)
    yield made
    asyncio.run(made.embedded.stop())


def sorted_by(name, *, ascending=False, **more):
    return {"sort_by": {"sort_type": name, "ascending": ascending, **more}}


ELSEWHERE = sorted_by("ACCESS_INFO_URI_BEGINS_WITH", begins_with="urn:elsewhere:4")
REGISTRY, JOB = "/registry/general/list", "/jobs/user/list"
LISTS = {
    "items": ("registry", REGISTRY, {}),
    "items, oldest first": ("registry", REGISTRY, sorted_by("UPDATED_TIME", ascending=True)),
    "items by creation": ("registry", REGISTRY, sorted_by("CREATED_TIME")),
    "items by name": ("registry", REGISTRY, sorted_by("DISPLAY_NAME", ascending=True)),
    "items of a type": ("registry", REGISTRY, {"filter_by": {"item_subtype": "MODEL_RUN"}}),
    "items not released": ("registry", REGISTRY, {"filter_by": {"release_status": "NOT_RELEASED"}}),
    "items released": ("registry", REGISTRY, {"filter_by": {"release_status": "RELEASED"}}),
    "runs": ("registry", "/registry/activity/model_run/list", {}),
    "runs by creation": ("registry", "/registry/activity/model_run/list", sorted_by("CREATED_TIME")),
    "datasets by name": ("registry", "/registry/entity/dataset/list", sorted_by("DISPLAY_NAME")),
    "datasets by where they are": ("registry", "/registry/entity/dataset/list", ELSEWHERE),
    "models": ("registry", "/registry/entity/model/list", {}),
    "datasets of the data store": ("data", "/registry/items/list", {}),
    "jobs": ("jobs", JOB, {}),
    "jobs of a batch": ("jobs", "/jobs/user/list_batch", {"batch_id": "batch7"}),
    "jobs of all": ("jobs", "/jobs/admin/list", {}),
    "jobs of all of a batch": ("jobs", "/jobs/admin/list_batch", {"batch_id": "batch7", "username_filter": "nobody"}),
}


@pytest.mark.parametrize("name", LISTS)
def test_each_page_of_a_list_is_found_in_an_index(filled, name):
    """The first and the fifth page read about as many rows as they show, without sorting or a full scan."""
    api, path, body = LISTS[name]
    body = body | {"limit" if api == "jobs" else "page_size": 50}
    seen = []
    for _ in range(5):
        page, steps, plans = filled.counted(api, "POST", path, json=body)
        assert steps < STEPS, (steps, plans)
        assert not any("TEMP B-TREE" in plan or re.match("SCAN (?!.* USING INDEX)", plan) for plan in plans), plans
        found = page.get("items", page.get("jobs"))
        seen += [item.get("session_id") or item["id"] for item in found]
        body = body | {"pagination_key": page["pagination_key"]}
        if page["pagination_key"] is None:
            break
    assert len(seen) == len(set(seen))
    # A release status is looked at in what a page has read, so that pages may hold fewer.
    few = ("models", "items released", "items not released", "jobs of all of a batch")
    assert len(seen) == 250 or name in few


def test_all_jobs_of_a_batch_are_found_page_by_page(filled):
    """Each job is found once, although seven of them were made in the same second."""
    seen, key = [], None
    while True:
        page = filled.ok(
            "jobs", "POST", "/jobs/user/list_batch", json={"batch_id": "batch7", "limit": 7, "pagination_key": key}
        )
        seen += [job["session_id"] for job in page["jobs"]]
        key = page["pagination_key"]
        if key is None:
            break
    assert len(seen) == len(set(seen)) == GROUPED


def test_a_page_is_bounded_whatever_is_asked_for(filled):
    """No request can make a list read everything into memory."""
    page = filled.ok("registry", "POST", REGISTRY, json={"page_size": 10**9})
    assert len(page["items"]) == 1000
    assert page["pagination_key"]
    assert len(filled.ok("jobs", "POST", JOB, json={"limit": 10**30})["jobs"]) == 1000


def test_a_rare_word_is_found_in_no_time_and_a_common_one_in_little(filled):
    """Search uses an index of words and returns the 50 best items at most."""
    found, steps, _ = filled.counted(
        "search", "GET", "/search/entity-registry", params={"query": "number4321", "subtype_filter": "MODEL_RUN"}
    )
    assert [result["id"] for result in found["results"]] == [f"102.100.100/{2000000 + 4321}"]
    assert steps < STEPS
    begin = time.monotonic()
    common = filled.ok("search", "GET", "/search/entity-registry", params={"query": "run model", "record_limit": 99})
    assert len(common["results"]) == 50
    assert time.monotonic() - begin < 5


def test_what_is_upstream_is_found_past_what_all_runs_say(filled):
    """A query about one run stays cheap, although all runs share a workflow template."""
    start = {"starting_id": f"102.100.100/{1000000 + 77}", "depth": 10}
    found, steps, plans = filled.counted("prov", "GET", "/explore/upstream", params=start)
    assert steps < STEPS, plans
    assert {"type": "hadMember", "source": "W", "target": "M"} in found["graph"]["links"]
    assert found["record_count"] == 6


def test_what_is_downstream_of_what_all_used_is_bounded(filled):
    """The 50,000 runs downstream are returned in seconds. More links than the real server's limit are a 502."""
    process = psutil.Process()
    before, begin = process.memory_info().rss, time.monotonic()
    start = {"starting_id": filled.dataset, "depth": 1}
    assert filled.ok("prov", "GET", "/explore/downstream", params=start)["record_count"] == RUNS + 1
    assert filled.ask("prov", "GET", "/explore/downstream", params=start | {"depth": 2}).status_code == 502
    for path in ("special/effected_datasets", "special/effected_agents"):
        reply = filled.ask("prov", "GET", f"/explore/{path}", params=start | {"depth": 3})
        assert (reply.status_code, reply.json()) == (502, {"message": "Internal server error"}), path
    assert time.monotonic() - begin < 40
    assert process.memory_info().rss - before < 400 << 20
