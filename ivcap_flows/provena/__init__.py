"""A typed, asynchronous client of Provena (https://github.com/provena/provena), one file an API."""

from ivcap_flows.provena.client import Endpoints, ProvenaClient

__all__ = ["Endpoints", "ProvenaClient"]
