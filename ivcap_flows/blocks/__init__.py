"""Prefect blocks: credentials of IVCAP and Provena, and the clients they give."""

from ivcap_flows.blocks.credentials import IvcapCredentials, ProvenaCredentials

__all__ = ["IvcapCredentials", "ProvenaCredentials"]
