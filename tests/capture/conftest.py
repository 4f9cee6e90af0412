"""A Prefect API for flows that run in the test's own process."""

import prefect.context
import pytest
from prefect.settings import temporary_settings

from ivcap_flows.capture import journal, recorder
from ivcap_flows.provenance import Graph, faults
from ivcap_flows.provenance.prov_json import document, dumps


@pytest.fixture(scope="session")
def settings_of_prefect(prefect_settings):
    """Made once: Prefect takes a tenth of a second for it."""
    with temporary_settings(prefect_settings):
        return prefect.context.get_settings_context()


@pytest.fixture
def prefect_api(settings_of_prefect, monkeypatch):
    """Flows of this process report to the test server, without heartbeats, which cost a second a flow.

    Threads of Prefect's own, too; without an address they would start a server for themselves.
    """
    monkeypatch.setattr(prefect.context, "GLOBAL_SETTINGS_CONTEXT", settings_of_prefect)


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
