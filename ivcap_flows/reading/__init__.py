"""Read the record back: where a thing comes from, on this machine and others, and whether it is unchanged."""

from __future__ import annotations

from ivcap_flows.reading.lineage import Lineage, lineage
from ivcap_flows.reading.names import is_path, starts_of
from ivcap_flows.reading.remote_records import RemoteRecords

__all__ = ["Lineage", "RemoteRecords", "is_path", "lineage", "starts_of"]
