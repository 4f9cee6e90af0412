"""Prefect blocks: credentials for IVCAP and Provena, and the clients that they create."""

from ivcap_flows.blocks.credentials import IvcapCredentials, ProvenaCredentials

__all__ = ["IvcapCredentials", "ProvenaCredentials"]
