"""The graph that flows of the test's own process leave on record."""

import pytest

from ivcap_flows.capture import journal, recorder
from ivcap_flows.provenance import Graph, faults
from ivcap_flows.provenance.prov_json import document, dumps


@pytest.fixture
def recorded_graph():
    """The graph of the newest run (of more of them, or of all), checked by the rules and through the prov library."""

    def graph(*, everything: bool = False, runs: int = 1) -> Graph:
        from prov.model import ProvDocument

        assert recorder().flush()
        newest = journal().runs.recent(1000 if everything else runs)
        found = Graph(fact.record for run in newest for fact in journal().facts.of_run(run.id))
        assert faults(found) == []
        assert ProvDocument.deserialize(content=dumps(found), format="json") == document(found)
        return found

    return graph
