"""Send OpenLineage events by the transport that its own client is configured for. Needs the extra `openlineage`."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Final

from ivcap_flows.errors import ConfigurationError, NotAuthorizedError, UnavailableError
from ivcap_flows.provenance import openlineage
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.secrets import scrub_text
from ivcap_flows.sinks.base import Delivery, shareable
from ivcap_flows.sinks.contents import Contents
from ivcap_flows.threads import alone

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport import Transport

    from ivcap_flows.journal import RunRow

__all__ = ["OpenLineageSink"]

_SECONDS: Final = 30.0
"""Seconds that a transport that sends in the background may take for the rest."""
_TEMPORARY: Final = frozenset({401, 403, 408, 425, 429})
"""Client errors that say nothing about the events."""


class OpenLineageSink:
    """Sends all events of a run each time the run has new facts. Their run ids stay the same.

    The transport is configured as OpenLineage documents: `OPENLINEAGE_URL`, `OPENLINEAGE__TRANSPORT__…` or
    `openlineage.yml`. No local user, absolute path or e-mail address is sent, but the source of the flow is. Raises
    ConfigurationError without the extra, without a transport, and for a transport that does not report what it could
    not send.
    """

    def __init__(self) -> None:
        self._name = _name_of(_client())

    @property
    def name(self) -> str:
        return self._name

    async def deliver(self, run: RunRow, graph: Graph) -> Delivery:
        return await alone(_send, run, graph)


def _send(run: RunRow, graph: Graph) -> Delivery:
    from requests import HTTPError

    contents = Contents(graph)
    sources = contents.sources(run.entry_point)
    events = openlineage.events(shareable(contents.with_reasons()), sources=sources)
    client = _client()
    try:
        for event in events:
            client.emit(event)
    except (HTTPError, RuntimeError) as error:
        # A transport that is made of others raises RuntimeError, with the error of the other as its cause.
        cause = error if isinstance(error, HTTPError) else error.__cause__ or error
        status = cause.response.status_code if isinstance(cause, HTTPError) and cause.response is not None else 0
        if 400 <= status < 500 and status not in _TEMPORARY:
            return Delivery("dead", scrub_text(str(cause)))
        temporary = NotAuthorizedError if status in (401, 403) else UnavailableError
        raise temporary(scrub_text(str(cause))) from error
    finally:
        sent = client.close(_SECONDS)
    return Delivery("delivered") if sent else Delivery("pending", f"not all events were sent within {_SECONDS:g} s")


def _client() -> OpenLineageClient:
    if importlib.util.find_spec("openlineage") is None:
        raise ConfigurationError(
            "OpenLineage needs an extra. Install it with `pip install 'ivcap-flows[openlineage]'`."
        )
    from openlineage.client import OpenLineageClient

    try:
        client = OpenLineageClient()
        configured = client.config.transport or {}
    except (TypeError, ValueError, LookupError, RuntimeError, ImportError) as error:
        raise ConfigurationError(f"OpenLineage's transport cannot be used: {scrub_text(str(error))}.") from error
    if client.transport.kind == "noop":
        raise ConfigurationError("OpenLineage is switched off. Unset OPENLINEAGE_DISABLED, or leave out its sink.")
    if client.transport.kind == "console" and configured.get("type") != "console":
        raise ConfigurationError(
            "OpenLineage has no transport. Set OPENLINEAGE_URL, or set OPENLINEAGE_CONFIG to a file that names a "
            "transport."
        )
    _check(client.transport)
    return client


def _check(transport: Transport) -> None:
    """Raise ConfigurationError for a transport that does not report what it could not send."""
    inner = [*getattr(transport, "transports", ()), getattr(transport, "transport", None)]
    config = getattr(transport, "config", None)
    if transport.kind == "async_http":
        transport.close(0)
        raise ConfigurationError("OpenLineage's transport async_http does not report failed events. Use http.")
    if getattr(config, "continue_on_failure", False) and getattr(config, "continue_on_success", False):
        raise ConfigurationError(
            "OpenLineage's transport composite does not report the failed events of its transports. Set its "
            "continue_on_failure to false."
        )
    for each in inner:
        if each is not None:
            _check(each)


def _name_of(client: OpenLineageClient) -> str:
    """Return the name under which deliveries are kept. Another place has another name, and so gets every run."""
    config = getattr(client.transport, "config", None)
    places = (getattr(config, name, None) for name in ("url", "log_file_path", "topic"))
    place = next((place for place in places if place), "")
    return f"openlineage:{client.transport.kind}" + (f":{scrub_text(str(place))}" if place else "")
