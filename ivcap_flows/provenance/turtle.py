"""Turtle: PROV-O (W3C Recommendation of 30 April 2013) by the `prov` library; it needs the extra `turtle`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from ivcap_flows.errors import ConfigurationError
from ivcap_flows.provenance.prov_json import document
from ivcap_flows.provenance.records import Record

__all__ = ["dumps"]


def dumps(records: Iterable[Record]) -> str:
    """Return the records as Turtle text. A thing's IRI is its id.

    Raises ValueError if they break the rules, and ConfigurationError without the extra.
    """
    if importlib.util.find_spec("rdflib") is None:
        raise ConfigurationError("Turtle needs an extra. Install it with `pip install 'ivcap-flows[turtle]'`.")
    return str(document(records).serialize(format="rdf", rdf_format="turtle"))
