"""The embedded Provena: a real server of Keycloak and Provena's seven APIs over one directory."""

from ivcap_flows.local.provena.platform import EmbeddedProvena, environment, service_credentials

__all__ = ["EmbeddedProvena", "environment", "service_credentials"]
