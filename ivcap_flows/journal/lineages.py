"""The facts between a thing and its origins, or between it and what was made from it, read by one query.

The query follows those rules of `provenance.lineage_walk` that depend on ids and types. It returns a little more than
the lineage: if several activities are said to have made a thing, the graph decides which of them did.
"""

# ruff: noqa: S608 - the queries consist of constants in this file; ids are bound
from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.identity import file_urn, flows_urn, path_text
from ivcap_flows.journal import schema
from ivcap_flows.journal.store import Store
from ivcap_flows.provenance.graph import merge
from ivcap_flows.provenance.records import Record, activity

__all__ = ["Lineages", "RunEnds"]

_F, _A = schema.facts, schema.attempts

SAID: Final = 16
"""If a thing has more than twice as many facts, read only so many of the first and so many of the last. Every run has
a fact about its account and its services. The same holds for what an agent says of other agents."""
_CHUNK: Final = 500
_CONTENT: Final = file_urn("")
_OURS: Final = flows_urn("", "")[:-1]

_BIRTHS: Final = "('wasGeneratedBy', 'wasStartedBy')"
_SAMES: Final = "('specializationOf', 'alternateOf')"


def _is(id_: str, *kinds: str) -> str:
    return "(" + " OR ".join(f"{id_} LIKE '{flows_urn(kind, '%')}'" for kind in kinds) + ")"


def _frame(id_: str) -> str:
    return _is(id_, "run", "attempt")


def _fact_of_frame(id_: str) -> str:
    return _is(id_, "parameters", "code")


_ACTS: Final = f"({_is('r.id', 'task-run', 'call')} OR r.id LIKE 'urn:ivcap:order:%' OR r.id LIKE 'urn:ivcap:job:%')"
_OTHER_CLAIM: Final = (
    "EXISTS (SELECT 1 FROM facts o WHERE o.source = f.source AND o.type = f.type AND o.target <> f.target)"
)
_MADE: Final = "EXISTS (SELECT 1 FROM facts g WHERE g.source = f.record_id AND g.type = 'wasGeneratedBy')"
_IS_ORIGIN: Final = f"""{_MADE} AND NOT EXISTS (
    SELECT 1 FROM facts g JOIN facts u ON u.source = g.target AND u.type = 'used' AND (u.target = {{taken}})
    WHERE g.source = f.record_id AND g.type = 'wasGeneratedBy')"""
_HAS_CONTENT: Final = "r.id OR EXISTS (SELECT 1 FROM facts h WHERE h.record_id = u.target AND h.version = f.version)"
# A content is not its own holder. It has facts of its own wherever it is used.
_HELD: Final = tuple(
    f"r.id LIKE '{_CONTENT}%' AND f.version = substr(r.id, {len(_CONTENT) + 1}) AND f.record_id {other} r.id"
    for other in "<>"
)
_ITS_CONTENT: Final = (
    f"'{_CONTENT}' || f.version",
    "1",
    f"NOT {_is('r.id', 'code', 'task-run', 'call', 'attempt', 'run')} "
    "AND f.seq = (SELECT m.seq FROM facts m WHERE m.record_id = r.id AND m.version IS NOT NULL LIMIT 1)",
)


def _some(column: str, id_: str) -> str:
    """Return the query for the `seq` of the first and of the last facts with this id in a column."""
    first = f"SELECT b.seq FROM facts b WHERE b.{column} = {id_} ORDER BY b.seq LIMIT {SAID}"
    last = f"SELECT e.seq FROM facts e WHERE e.{column} = {id_} ORDER BY e.seq DESC LIMIT {SAID}"
    return f"SELECT seq FROM ({first}) AS begin UNION SELECT seq FROM ({last}) AS e"


def _no_agent(id_: str) -> str:
    """Return the condition that a thing is no agent. Each run states anew for whom its software, an agent, acts.

    Nothing but agents has this relation, and agents have no other.
    """
    return f"(SELECT a.type FROM facts a WHERE a.source = {id_} ORDER BY a.seq LIMIT 1) <> 'actedOnBehalfOf'"


_Step = tuple[str, str, str]
"""The id of the other end, whether to follow that in full, and the condition on the fact `f` of a thing `r`."""

_STEPS: Final[dict[str, Sequence[_Step]]] = {
    "up": (
        (
            "f.target",
            f"""CASE WHEN f.type = 'wasStartedBy' AND {_frame("f.target")}
            OR f.type = 'wasInfluencedBy' AND NOT {_frame("f.target")} THEN 0 ELSE 1 END""",
            # What an aspect is about may be a collection, whose members are then left out.
            f"""f.source = r.id AND {_no_agent("r.id")} AND (r.whole = 1 OR f.type <> 'hadMember')
            AND (r.whole = 1 OR f.type NOT IN ('used', 'wasInformedBy') OR NOT {_frame("r.id")}
            OR (f.type = 'used' AND {_fact_of_frame("f.target")}))""",
        ),
        ("f.target", "1", f"NOT {_no_agent('r.id')} AND f.seq IN ({_some('source', 'r.id')})"),
        _ITS_CONTENT,
        *(("f.record_id", "1", f"{held} AND {_IS_ORIGIN.format(taken='r.id')}") for held in _HELD),
        # If another activity is also said to have made the thing, this one may only have used it.
        (
            "f.source",
            "1",
            f"f.target = r.id AND {_ACTS} AND f.type IN {_BIRTHS} AND f.source NOT LIKE '{_OURS}%' AND {_OTHER_CLAIM}",
        ),
    ),
    "down": (
        (
            "f.source",
            f"""CASE WHEN f.type = 'used' AND {_frame("f.source")} AND NOT {_fact_of_frame("r.id")}
            THEN 0 ELSE 1 END""",
            f"f.target = r.id AND (r.whole = 1 OR f.type <> 'wasStartedBy' OR NOT {_frame('r.id')})",
        ),
        ("f.target", "1", f"f.source = r.id AND NOT {_is('r.id', 'task-run', 'call')} AND f.type IN {_SAMES}"),
        _ITS_CONTENT,
        *(("f.record_id", "1", f"{held} AND NOT ({_IS_ORIGIN.format(taken=_HAS_CONTENT)})") for held in _HELD),
        (
            "f.target",
            "1",
            f"f.source = r.id AND r.id NOT LIKE '{_OURS}%' AND f.type IN {_BIRTHS} AND {_OTHER_CLAIM}",
        ),
    ),
    "both": (
        (
            "f.target",
            f"""CASE WHEN f.type IN ('hadPlan', 'wasAssociatedWith', 'wasAttributedTo', 'actedOnBehalfOf')
            OR {_fact_of_frame("f.target")} THEN 0 ELSE 1 END""",
            "f.source = r.id AND r.whole = 1",
        ),
        ("f.source", "1", "f.target = r.id AND r.whole = 1"),
        _ITS_CONTENT,
        *(("f.record_id", "1", held) for held in _HELD),
    ),
    "runs": (
        (
            "f.target",
            "1",
            f"""f.source = r.id AND {_no_agent("r.id")}
            AND (f.type = 'wasStartedBy' OR (f.type IN ('hadPlan', 'wasAssociatedWith') AND {_frame("r.id")}))""",
        ),
    ),
}

# The other activities that are said to have made a thing on the way, and which of them started which.
_CLAIMS: Final = f"""known(id) AS (
    SELECT * FROM (SELECT f.target FROM reached r JOIN facts f ON f.source = r.id
    WHERE (f.type = 'wasGeneratedBy' AND NOT {_is("r.id", "task-run", "call")} AND EXISTS (
        SELECT 1 FROM facts o WHERE o.source = f.source AND o.type = f.type AND {_frame("o.target")}))
    OR (r.id NOT LIKE '{_OURS}%' AND f.type IN {_BIRTHS} AND {_OTHER_CLAIM})) AS claimants
    UNION SELECT f.target FROM known k JOIN facts f ON f.source = k.id WHERE f.type = 'wasStartedBy'
)"""

_OFTEN: Final = (
    f"EXISTS (SELECT s.seq FROM facts s WHERE s.record_id = ids.id ORDER BY s.seq LIMIT 1 OFFSET {2 * SAID})"
)
_RECORDS: Final = f"""SELECT n.seq, n.record FROM ids CROSS JOIN facts n WHERE n.record_id = ids.id AND NOT {_OFTEN}
UNION ALL
SELECT n.seq, n.record FROM ids JOIN facts n ON n.seq IN ({_some("record_id", "ids.id")}) WHERE {_OFTEN}
UNION ALL
SELECT l.seq, l.record FROM ids CROSS JOIN facts l
WHERE l.source = ids.id AND coalesce(l.target, '') IN (SELECT id FROM ids) AND {_no_agent("ids.id")}
UNION ALL
SELECT l.seq, l.record FROM ids JOIN facts l ON l.seq IN ({_some("source", "ids.id")})
WHERE NOT {_no_agent("ids.id")} AND coalesce(l.target, '') IN (SELECT id FROM ids)
ORDER BY 1"""


@dataclass(frozen=True)
class RunEnds:
    """What a run `used` without making it, and what it `made`; `count` is the number of both, also beyond these.

    `makers` has the activity that made each thing, and `model_runs` the model run that was registered for each order,
    by id.
    """

    used: list[Record]
    made: list[Record]
    makers: dict[str, str]
    model_runs: dict[str, str]
    count: int


class Lineages:
    """Lineage queries over the facts of one journal."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queries: dict[str, sa.TextClause] = {}

    def knows(self, id: str) -> bool:  # noqa: A002 - the graph's own word
        """Return whether any run has a record of a thing."""
        query = sa.select(_F.c.seq).where(_F.c.record_id == id).limit(1)
        with self._store.read() as connection:
            return connection.execute(query).first() is not None

    def with_version(self, version: str, *, code: bool = False) -> list[str]:
        """Return the ids of things with this sha256; with `code`, of the code whose commit begins with `version`."""
        found = sa.select(_F.c.record_id).distinct().where(_F.c.version.is_not(None))
        if code:
            found = found.where(_F.c.version >= version, _F.c.version < version + "g", _F.c.type == "code")
        else:
            found = found.where(_F.c.version == version, _F.c.type != "code")
        with self._store.read() as connection:
            return list(connection.execute(found.order_by(_F.c.record_id)).scalars())

    def newest_at(self, path: str, version: str) -> str | None:
        """Return the id of the file or folder that was last recorded at a path with this sha256, or None."""
        query = sa.select(_F.c.record).where(_F.c.version == version, _F.c.type.in_(("file", "directory")))
        with self._store.read() as connection:
            texts = connection.execute(query.order_by(_F.c.seq.desc())).scalars()
            records = map(Record.model_validate_json, texts)
            return next((each.id for each in records if each.attributes.get("path") == path_text(path)), None)

    def last_at(self, path: str) -> str | None:
        """Return the sha256 of the file or folder that was last recorded at a path, or None. All records are read."""
        text = path_text(path)
        named = _F.c.record.contains(f'"path":{json.dumps(text, ensure_ascii=False)}', autoescape=True)
        query = sa.select(_F.c.record).where(_F.c.type.in_(("file", "directory")), named).order_by(_F.c.seq.desc())
        with self._store.read() as connection:
            records = map(Record.model_validate_json, connection.execute(query).scalars())
            found = (each.attributes for each in records if each.attributes.get("path") == text)
            return next((each.get("sha256") or each.get("manifest_sha256") for each in found), None)

    def followed(self, codes: Sequence[str]) -> list[str]:
        """Return the ids of the runs with an attempt that ran one of these versions of code."""
        attempt, run = _F.alias(), _F.alias()
        query = (
            sa.select(run.c.target)
            .distinct()
            .join_from(attempt, run, run.c.source == attempt.c.source)
            .where(attempt.c.target.in_(codes), attempt.c.type == "hadPlan", run.c.type == "wasStartedBy")
            .where(run.c.target.startswith(flows_urn("run", "")))
        )
        with self._store.read() as connection:
            return sorted(connection.execute(query).scalars())

    def code_of(self, attempt_id: str) -> Record | None:
        """Return the code that an attempt ran, if that is on record."""
        plan, code = _F.alias(), _F.alias()
        query = (
            sa.select(code.c.record)
            .join_from(plan, code, code.c.record_id == plan.c.target)
            .where(plan.c.source == flows_urn("attempt", attempt_id), plan.c.type == "hadPlan")
            .limit(1)
        )
        with self._store.read() as connection:
            text = connection.execute(query).scalar()
        return None if text is None else Record.model_validate_json(text)

    def around(
        self,
        ids: Iterable[str],
        direction: Literal["up", "down", "both", "runs"],
    ) -> Iterator[Record]:
        """Read the records between things and their origins (`up`) or what was made from them (`down`), of all that is
        connected with them (`both`), or of the runs that they belong to (`runs`).

        Yield the oldest first, then how the attempts ended, since a killed one could not write that. A thing without
        any record yields nothing.
        """
        query = self._queries.get(direction)
        if query is None:
            query = self._queries[direction] = sa.text(_query(direction, lateral=not self._store.is_sqlite))
        attempts: dict[str, None] = {}
        with self._store.read() as connection:
            starts = json.dumps(self._started(connection, list(ids), direction))
            options = {"yield_per": 1000}
            rows = connection.execute(query, {"starts": starts}, execution_options=options)
            for _, text in rows.tuples():
                record = Record.model_validate_json(text)
                if record.type == "attempt":
                    attempts[record.id] = None
                yield record
            yield from _endings(connection, list(attempts))

    def ends(self, run_id: str, *, most: int) -> RunEnds:
        """Return what a run used without making it, and what it made: together at most `most` records."""
        links = sa.select(_F.c.type, _F.c.source, _F.c.target).where(
            _F.c.run_id == run_id, _F.c.type.in_(("used", "wasGeneratedBy"))
        )
        registered = sa.select(_F.c.record).where(_F.c.run_id == run_id, _F.c.type == "model-run")
        used: dict[str, None] = {}
        makers: dict[str, str] = {}
        with self._store.read() as connection:
            for type_, source, target in connection.execute(links.order_by(_F.c.seq)).tuples():
                if type_ == "used":
                    used[target] = None
                else:
                    makers.setdefault(source, target)
            inputs = [id_ for id_ in used if id_ not in makers]
            wanted = [*makers, *inputs][:most]
            merged: dict[str, Record] = {}
            for first in range(0, len(wanted), _CHUNK):
                some = sa.select(_F.c.record).where(
                    _F.c.run_id == run_id, _F.c.record_id.in_(wanted[first : first + _CHUNK])
                )
                for text in connection.execute(some.order_by(_F.c.seq)).scalars():
                    record = Record.model_validate_json(text)
                    merged[record.id] = merge(merged[record.id], record) if record.id in merged else record
            runs = map(
                Record.model_validate_json, connection.execute(registered.order_by(_F.c.seq).limit(most)).scalars()
            )
            about = {str(run.attributes.get("subject")): run.id for run in runs}
        one, two = ([merged[id_] for id_ in ids if id_ in merged] for ids in (inputs, makers))
        return RunEnds(one, two, makers, about, len(makers) + len(inputs))

    def _started(self, connection: Connection, ids: list[str], direction: str) -> list[str]:
        """Return the ids that a lineage starts from: what has a content, and upwards also a thing's other names and all
        activities of a run.
        """
        found = dict.fromkeys(ids)
        for id_ in (id_ for id_ in ids if id_.startswith(_CONTENT)):
            held = sa.select(_F.c.record_id).distinct().where(_F.c.version == id_[len(_CONTENT) :])
            found.update(dict.fromkeys(connection.execute(held).scalars()))
        if direction != "up":
            return list(found)
        for id_ in ids:
            other = sa.select(_F.c.source).where(_F.c.target == id_, _F.c.type.in_(("specializationOf", "alternateOf")))
            found.update(dict.fromkeys(connection.execute(other).scalars()))
        fresh = [id_ for id_ in ids if id_.startswith((flows_urn("run", ""), flows_urn("attempt", "")))]
        while fresh:
            parts = sa.select(_F.c.source).where(_F.c.target.in_(fresh[:_CHUNK]), _F.c.type == "wasStartedBy")
            new = [id_ for id_ in connection.execute(parts.distinct()).scalars() if id_ not in found]
            found.update(dict.fromkeys(new))
            fresh = fresh[_CHUNK:] + new
        return list(found)


def _query(direction: str, *, lateral: bool) -> str:
    """Return the query that repeats the steps of a direction until nothing new is found.

    A recursive query may refer to itself only once on PostgreSQL, so all steps are one LATERAL join there. SQLite has
    no LATERAL.
    """
    before = "" if lateral else "reached r CROSS JOIN "
    steps = [
        f"SELECT {other} AS id, {whole} AS whole FROM {before}facts f WHERE {where}"
        for other, whole, where in _STEPS[direction]
    ]
    if lateral:
        start = "SELECT value, 1 FROM json_array_elements_text(:starts) AS start(value)"
        step = f"SELECT s.id, s.whole FROM reached r CROSS JOIN LATERAL ({' UNION ALL '.join(steps)}) s"
    else:
        start, step = "SELECT value, 1 FROM json_each(:starts)", "\nUNION ".join(steps)
    ways = f"WITH RECURSIVE reached(id, whole) AS ({start}\nUNION {step})"
    if direction == "down":
        return f"{ways}, {_CLAIMS}, ids AS (SELECT id FROM reached UNION SELECT id FROM known) {_RECORDS}"
    return f"{ways}, ids AS (SELECT DISTINCT id FROM reached) {_RECORDS}"


def _endings(connection: Connection, attempts: list[str]) -> Iterator[Record]:
    prefix = flows_urn("attempt", "")
    columns = (_A.c.id, _A.c.outcome, _A.c.cause, _A.c.started_at, _A.c.ended_at)
    for first in range(0, len(attempts), _CHUNK):
        some = [urn.removeprefix(prefix) for urn in attempts[first : first + _CHUNK]]
        rows: Iterable[Any] = connection.execute(
            sa.select(*columns).where(_A.c.id.in_(some), _A.c.outcome != "running").order_by(_A.c.seq)
        )
        for row in rows:
            ended = max(row.ended_at, row.started_at) if row.ended_at else None
            urn = prefix + row.id
            yield activity(urn, "attempt", row.started_at, ended, outcome=row.outcome, cause=row.cause)
