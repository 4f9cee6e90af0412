"""Lists stay fast however many artifacts, jobs and aspects there are, since every page is found by an index."""

import asyncio
import re
import time

import httpx
import pytest

from ivcap_flows.local.directory import Directory
from ivcap_flows.local.ivcap.app import create_app
from ivcap_flows.local.ivcap.platform import Platform

ARTIFACTS, JOBS, ASPECTS, HISTORY, PRODUCTS = 2_000, 10_000, 20_000, 5_000, 2_000
JOB = "urn:ivcap:schema:job.2"
SERVICE = {"name": "s", "description": "d", "controller-schema": "urn:x", "controller": {}, "parameters": []}
COUNTED = 10
"""Steps of SQLite's machine between two counts."""
STEPS = 6_000
"""Steps that a page of 50 may take: some 51 rows, and what is around them."""


def multiply(store, table, count, **values):
    """Insert `count` copies of a table's last row that differ in these SQL expressions of `n`, from 1 on."""
    columns = [row["name"] for row in store.all(f"PRAGMA table_info({table})") if row["name"] != "seq"]
    chosen = ", ".join(f"{values.get(name, 'one.' + name)}" for name in columns)
    store.execute(
        f"""WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {count}),
        one AS (SELECT * FROM {table} ORDER BY seq DESC LIMIT 1)
        INSERT INTO {table} ({", ".join(columns)}) SELECT {chosen} FROM counted, one"""
    )


class Filled:
    """A platform in this process whose database queries are recorded."""

    def __init__(self, root):
        directory = Directory(root)
        directory.prepare()
        self.platform = Platform(directory)
        self.store = self.platform.store
        token = self.platform.tokens.issue(self.platform.first)
        self.transport = httpx.ASGITransport(create_app(self.platform))
        self.headers = {"Authorization": f"Bearer {token}"}
        self.steps, self.plans = 0, []
        self.fill()
        self.asked = self.store.all
        self.store.all = self.watched

    def fill(self):
        store = self.store
        self.artifact = self.post("/1/artifacts", headers={"X-Name": "n"}, content=b"x")["id"]
        self.service = self.post("/1/services2", json=SERVICE)["id"]
        self.order = self.post("/1/orders", json={"service": self.service, "parameters": []})["id"]
        self.post(f"/1/services2/{self.service}/jobs", json={})
        pair = {"entity": "urn:t:e0", "schema": "urn:t:s0"}
        self.post("/1/aspects", params=pair, json={"n": 0})
        with store.transaction():
            urn = "printf('%s:%08d', substr(one.id, 1, 28), n)"
            moment = {"created_at": "one.created_at - 20000 + n", "name": "'name ' || (n % 100)"}
            multiply(store, "artifacts", ARTIFACTS, id=urn, **moment)
            store.execute("UPDATE jobs SET status = 'succeeded', finished_at = requested_at")
            multiply(store, "jobs", JOBS, id=urn, requested_at="one.requested_at - 60000 + n")
            multiply(store, "orders", ARTIFACTS, id=urn, name="'run ' || (n % 50)", ordered_at="one.ordered_at - n")
            aspect = {"id": urn, "valid_from": "one.valid_from - 200000 + 5 * n"}
            multiply(
                store,
                "aspects",
                ASPECTS,
                **aspect,
                entity="'urn:t:e' || (n % 1000)",
                schema="'urn:t:s' || (n % 10)",
                content="json_object('n', n)",
            )
            # Records of jobs, and versions of one aspect that follow each other.
            at = "printf('2026-01-01T%02d:%02d:%02dZ', n / 3600, n / 60 % 60, n % 60)"
            multiply(
                store,
                "aspects",
                JOBS,
                id="one.id || 'j' || n",
                entity="'urn:ivcap:job:' || n",
                schema=f"'{JOB}'",
                content=f"json_object('requested-at', {at})",
            )
            multiply(
                store,
                "aspects",
                HISTORY,
                id="one.id || 'h' || n",
                entity="'urn:t:counter'",
                schema="'urn:t:count'",
                content="json_object('n', n)",
                valid_from="one.valid_from - 90000 + n",
                valid_to=f"CASE WHEN n < {HISTORY} THEN one.valid_from - 89999 + n END",
            )
            store.execute(
                "INSERT INTO products (order_id, job, artifact)"
                " SELECT ?, (SELECT MAX(id) FROM jobs), id FROM artifacts LIMIT ?",
                (self.order, PRODUCTS),
            )

    def call(self, method, path, headers=(), **more):
        async def ask():
            async with httpx.AsyncClient(transport=self.transport, base_url="http://127.0.0.1") as http:
                return await http.request(method, path, headers={**self.headers, **dict(headers)}, **more)

        reply = asyncio.run(ask())
        assert reply.is_success, reply.text
        return reply.json()

    def post(self, path, **more):
        return self.call("POST", path, **more)

    def watched(self, sql, values=()):
        self.plans += [row["detail"] for row in self.asked(f"EXPLAIN QUERY PLAN {sql}", values)]

        def count():
            self.steps += COUNTED

        connection = self.store._connection
        connection.set_progress_handler(count, COUNTED)
        try:
            return self.asked(sql, values)
        finally:
            connection.set_progress_handler(None, 0)

    def page(self, path, **params):
        """Return a page, the number of database steps it took, and the query plan."""
        self.steps, self.plans = 0, []
        page = self.call("GET", path, params={"limit": 50, **params})
        return page, self.steps, list(self.plans)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    made = Filled(tmp_path_factory.mktemp("load") / "embedded")
    yield made
    made.platform.close()


def cursor(page):
    return next((link["href"].partition("?page=")[2] for link in page["links"] if link["rel"] == "next"), None)


QUESTIONS = {
    "artifacts": ("/1/artifacts", {}),
    "artifacts, oldest first": ("/1/artifacts", {"order-desc": "false"}),
    "artifacts by name": ("/1/artifacts", {"order-by": "name"}),
    "artifacts of a name": ("/1/artifacts", {"filter": "name == 'name 7'"}),
    "artifacts, then": ("/1/artifacts", {"at-time": "then"}),
    "jobs of a service": ("/1/services2/{service}/jobs", {}),
    "jobs of a service, oldest first": ("/1/services2/{service}/jobs", {"order-desc": "false"}),
    "orders": ("/1/orders", {}),
    "orders of a name": ("/1/orders", {"filter": "name == 'run 7'"}),
    "products": ("/1/orders/{order}/products", {}),
    "products, oldest first": ("/1/orders/{order}/products", {"order-desc": "false", "order-by": "created-at"}),
    "aspects of an order": ("/1/orders/{order}/metadata", {}),
    "aspects": ("/1/aspects", {}),
    "aspects, oldest first": ("/1/aspects", {"order-direction": "asc"}),
    "aspects of an entity": ("/1/aspects", {"entity": "urn:t:e1"}),
    "aspects of a schema": ("/1/aspects", {"schema": "urn:t:s1"}),
    "aspects of both": ("/1/aspects", {"entity": "urn:t:e1", "schema": "urn:t:s1", "include-content": "true"}),
    "aspects of a schema, then": ("/1/aspects", {"schema": "urn:t:s1", "at-time": "then"}),
    "jobs as the ivcap command lists them": ("/1/aspects", {"schema": JOB, "order-by": "requested-at"}),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_each_page_of_a_common_list_is_found_in_an_index(filled, question):
    """The first and the thirtieth page read about as many rows as they show, without sorting or a full scan."""
    path, params = QUESTIONS[question]
    path = path.format(service=filled.service, order=filled.order)
    if params.get("at-time") == "then":
        # Before all that the platform made itself, and behind what was filled in.
        params = {**params, "at-time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 9))}
    seen, following = [], None
    for _ in range(30):
        page, steps, plans = filled.page(path, **({"page": following} if following else params))
        assert steps < STEPS, plans
        # A scan of an index is one in the order of the list; the steps say that it ends with the page.
        assert not any("TEMP B-TREE" in plan or re.match("SCAN (?!.* USING INDEX)", plan) for plan in plans), plans
        seen += [item["id"] for item in page["items"]]
        following = cursor(page)
        if following is None:
            break
    assert len(seen) == len(set(seen)) > 0


def test_a_deep_page_of_mixed_directions_is_found_by_its_first_column(filled):
    """If columns have different directions, the rows before the page are not read again."""
    params = {"order-by": "schema,entity", "order-direction": "asc,desc"}
    _, first, _ = filled.page("/1/aspects", **params)
    page = filled.page("/1/aspects", **params)[0]
    for _ in range(3):
        page, steps, _ = filled.page("/1/aspects", page=cursor(page))
        assert steps <= first * 1.2


def test_what_was_replaced_often_is_replaced_again_at_once(filled):
    """A PUT reads only the valid record, however many versions came before it."""
    filled.steps = 0
    history = {"entity": "urn:t:counter", "schema": "urn:t:count"}
    newest = filled.call("PUT", "/1/aspects", params=history, json={"n": -1})["id"]
    assert 0 < filled.steps < 1000
    page, steps, plans = filled.page("/1/aspects", **history)
    assert [item["id"] for item in page["items"]] == [newest]
    assert steps < HISTORY * 30 and not any("TEMP" in plan for plan in plans)
