"""PROV-N, the notation for people (W3C Recommendation of 30 April 2013), by the `prov` library, which reads it back."""

from __future__ import annotations

from collections.abc import Iterable

from ivcap_flows.provenance.prov_json import document
from ivcap_flows.provenance.records import Record

__all__ = ["dumps"]


def dumps(records: Iterable[Record]) -> str:
    """Return the records as PROV-N text, with the names of PROV-JSON. Raises ValueError if they break the rules."""
    return str(document(records).get_provn()) + "\n"
