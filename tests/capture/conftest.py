"""A Prefect API for flows that run in the test's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import prefect.context
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_HOME, temporary_settings

from ivcap_flows.capture import journal, recorder
from ivcap_flows.provenance import Graph, faults
from ivcap_flows.provenance.prov_json import document, dumps


@pytest.fixture
def prefect_api(prefect_server: dict[str, str]) -> Iterator[None]:
    """Flows of this process report to the test server, without heartbeats, which cost a second a flow."""
    settings = {
        PREFECT_API_URL: prefect_server["PREFECT_API_URL"],
        PREFECT_HOME: prefect_server["PREFECT_HOME"],
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with temporary_settings(settings), pytest.MonkeyPatch.context() as patch:
        # Threads of Prefect's own see only these; without an address they would start a server for themselves.
        patch.setattr(prefect.context, "GLOBAL_SETTINGS_CONTEXT", prefect.context.get_settings_context())
        yield


@pytest.fixture
def recorded_graph() -> Callable[..., Graph]:
    """The graph of the newest run (or of all), checked against the rules and through the prov library."""

    def graph(*, everything: bool = False) -> Graph:
        from prov.model import ProvDocument

        assert recorder().flush()
        runs = journal().runs.recent(1000 if everything else 1)
        found = Graph(fact.record for run in runs for fact in journal().facts.of_run(run.id))
        assert faults(found) == []
        assert ProvDocument.deserialize(content=dumps(found), format="json") == document(found)
        return found

    return graph
