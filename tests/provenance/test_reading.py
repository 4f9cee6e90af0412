"""PROV-JSON is read back as the records that it was written from."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest

from ivcap_flows.provenance import Graph, activity, agent, entity, prov_json, relation
from ivcap_flows.provenance.reading import records_of

AT = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)


def test_a_graph_comes_back_as_it_was() -> None:
    """Ids of every form, times, roles, numbers, nested values and each relation are read back."""
    graph = Graph(
        [
            activity("urn:ivcap-flows:task-run:t", "task-run", AT, AT, name="Niño", outcome="failed", tries=3),
            activity("102.100.100/7", "model-run", name="run"),
            entity("urn:ivcap:artifact:a", "artifact", AT, size=2**40, ratio=0.5, sha256="a" * 64),
            entity("urn:ivcap-flows:file:sha256:" + "b" * 64, "file", path="/data/a b (1).csv"),
            entity("odd, [id]", "entity", nested={"x": [1, None]}, names=["p", "q"], yes=True),
            entity("urn:ivcap:service:s", "service"),
            agent("urn:ivcap-flows:user:me", "user", name="me", local=True),
            relation("used", "urn:ivcap-flows:task-run:t", "urn:ivcap:artifact:a", AT, role=["a", "b"]),
            relation("hadPlan", "urn:ivcap-flows:task-run:t", "urn:ivcap:service:s"),
            relation("wasAssociatedWith", "urn:ivcap-flows:task-run:t", "urn:ivcap-flows:user:me"),
            relation("wasInformedBy", "102.100.100/7", "urn:ivcap-flows:task-run:t"),
            relation("wasDerivedFrom", "odd, [id]", "urn:ivcap:artifact:a"),
            relation("alternateOf", "odd, [id]", "urn:ivcap:artifact:a"),
        ]
    )
    assert Graph(records_of(json.loads(prov_json.dumps(graph)))).digest() == graph.digest()


@pytest.mark.parametrize("wrong", [None, [], {"entity": {"a": 3}}, {"used": {"u": 3}}])
def test_what_is_no_document_is_a_value_error(wrong: object) -> None:
    """Any other document raises ValueError, since anybody who may add aspects may put anything in one."""
    with pytest.raises(ValueError, match="PROV-JSON"):
        records_of(wrong)


def test_what_has_no_end_on_record_is_left_out() -> None:
    """A relation without one of its ends, as in a truncated document, is left out."""
    found = records_of({"used": {"u": {"prov:activity": "urn:a", "prov:entity": "urn:b"}}})
    assert found == []
